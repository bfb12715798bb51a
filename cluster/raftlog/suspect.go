package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// suspectName is in the folder of a log that may have lost acknowledged entries, and says why. It
// goes with the folder, when the replica is made anew.
const suspectName = "damaged"

// suspect notes in the folder of a log that it may have lost entries.
func (d *disk) suspect(dir string, cause error) error {
	return d.writeFile(dir, suspectName, []byte(cause.Error()+"\n"))
}

// suspectAll notes in the folders of all logs below raft groups that they may have lost entries.
func (d *disk) suspectAll(groups string, cause error) error {
	dirs, err := d.fs.List(groups)
	if err != nil {
		return err
	}
	d.logger.Error("the journal is damaged: every log here may have lost acknowledged entries, and is not used any more", "error", cause)
	for _, e := range dirs {
		if !e.Dir || strings.HasSuffix(e.Name, ".deleted") {
			continue
		}
		if err := d.suspect(filepath.Join(groups, e.Name), cause); err != nil {
			return fmt.Errorf("%w; and then: %w", cause, err)
		}
	}
	return nil
}

// suspected gives an error if the log in a folder may have lost entries.
func (d *disk) suspected(dir string) error {
	b, err := d.readFile(filepath.Join(dir, suspectName), 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: it may have lost acknowledged entries: %s", ErrDamaged, strings.TrimSpace(string(b)))
}
