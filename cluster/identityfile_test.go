package cluster

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
)

// FuzzIdentityFile gives a node any node.json: it takes it or says what is wrong.
func FuzzIdentityFile(f *testing.F) {
	f.Add([]byte(`{"format":1,"node_id":"n1","incarnation":"0123abcd"}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"node_id":"n1","incarnation":"0123abcd","forming":{"nodes":[{}]}}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, "node.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		d := &dataDir{path: dir}
		file, err := d.loadIdentity("")
		if err == nil && (fsm.CheckNodeID(file.NodeID) != nil || len(file.Incarnation) != 8) {
			t.Fatalf("taken: %+v", file)
		}
	})
}
