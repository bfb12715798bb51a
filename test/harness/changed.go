package harness

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Change replaces a text that occurs once in a file of the repository.
type Change struct{ File, Old, New string }

// source is the file as it is, which has the text once.
func (c Change) source() (string, error) {
	b, err := os.ReadFile(filepath.Join(Root(), filepath.FromSlash(c.File)))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(b), c.Old); n != 1 {
		return "", fmt.Errorf("%s has %q %d times, want once", c.File, c.Old, n)
	}
	return string(b), nil
}

// ProgramChanged builds the node's binary below dir as if its source had the changes, for faults
// that this source does not have. The files stay as they are.
func ProgramChanged(dir string, changes ...Change) (string, error) {
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for i, c := range changes {
		file := filepath.Join(Root(), filepath.FromSlash(c.File))
		if overlay.Replace[file] != "" {
			return "", fmt.Errorf("%s is changed twice", c.File)
		}
		b, err := c.source()
		if err != nil {
			return "", err
		}
		overlay.Replace[file] = filepath.Join(dir, fmt.Sprintf("changed-%d.go", i))
		if err := os.WriteFile(overlay.Replace[file], []byte(strings.Replace(b, c.Old, c.New, 1)), 0o666); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	list, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "trimaran-changed")
	if err := os.WriteFile(list, b, 0o666); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-overlay", list, "-o", program, "./cmd/trimaran")
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build a changed trimaran: %w\n%s", err, out)
	}
	return program, nil
}

// hanging are the changes of HangingProgram.
var hanging = []Change{
	{"cluster/replica/transactions.go",
		"a.Refused, cut = p.join(ctx, joining{txn, h.ProducerID, h.ProducerEpoch, a.Guard})", "a.Refused, cut = nil, false"},
	{"cluster/replica/aborted.go", "const lateBuffer = 5 * time.Minute", "const lateBuffer = time.Second"},
}

// HangingProgram builds a node that lets transactions hang: partitions take transactional batches
// without a word to the coordinator, which so ends nothing there. And it says of a transaction that
// it is open for too long a second after it should have ended, not 5 minutes.
func HangingProgram(dir string) (string, error) { return ProgramChanged(dir, hanging...) }
