package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// readHints gives the addresses in the file; none if there is no file.
func readHints(path string) ([]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxHintsFile+1))
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

// writeHints replaces the file in one step.
func writeHints(path string, addrs []string) error {
	b, err := json.Marshal(hints{Version: hintsVersion, Gossip: addrs})
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
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
