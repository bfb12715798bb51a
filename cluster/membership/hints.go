package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// The hints file is JSON, {"version":1,"gossip":["host:port",…]}: where other members
// gossiped, latest first. It is a help to find them again and no more: it may be
// deleted, and what it says may be wrong.
type hints struct {
	Version int      `json:"version"`
	Gossip  []string `json:"gossip"`
}

const (
	hintsVersion = 1
	maxHints     = 64
	maxHintsFile = 64 << 10
)

// Hints keep one small file. Both methods may wait for a disk.
type Hints interface {
	// Load gives what is in the file. One that is longer than limit is an error; fs.ErrNotExist
	// says that there is none.
	Load(limit int64) ([]byte, error)
	// Save replaces the file in one step.
	Save([]byte) error
}

// Remembered gives the addresses at which others gossiped, host:port; none where there is no file.
// What they say may be wrong.
func Remembered(h Hints) ([]string, error) { return readHints(h) }

// readHints gives the addresses in the file; none if there is no file.
func readHints(h Hints) ([]string, error) {
	b, err := h.Load(maxHintsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseHints(b)
}

func parseHints(b []byte) ([]string, error) {
	if len(b) > maxHintsFile {
		return nil, fmt.Errorf("hints file larger than %d bytes", maxHintsFile)
	}
	var h hints
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("hints file: %w", err)
	}
	if h.Version != hintsVersion {
		return nil, fmt.Errorf("hints file: version %d is not known", h.Version)
	}
	return h.Gossip[:min(len(h.Gossip), maxHints)], nil
}

func writeHints(h Hints, addrs []string) error {
	b, err := json.Marshal(hints{Version: hintsVersion, Gossip: addrs})
	if err != nil {
		return err
	}
	return h.Save(append(b, '\n'))
}

// mergeHints puts live addresses first and keeps older ones behind them: the last node
// of a cluster that is being stopped must not forget the others because they left before it.
func mergeHints(live, known []string) []string {
	out := make([]string, 0, len(live)+len(known))
	seen := make(map[string]bool)
	for _, list := range [][]string{live, known} {
		for _, a := range list {
			if !seen[a] && len(out) < maxHints {
				seen[a] = true
				out = append(out, a)
			}
		}
	}
	return out
}
