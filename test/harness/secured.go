package harness

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// PeerTLS makes, in dir, certificates of nodes n1 to so many and a key of gossip, and gives the
// flags with which nodes know each other by them (Options.NodeArgs).
func PeerTLS(dir string, nodes int) ([]string, error) {
	program, err := Program("trimaran")
	if err != nil {
		return nil, err
	}
	all := []string{"cert", "node"}
	for i := range nodes {
		all = append(all, fmt.Sprint("n", i+1))
	}
	for _, args := range [][]string{{"cert", "ca"}, all} {
		if out, err := exec.Command(program, append(args, "--dir", dir)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	if err := os.WriteFile(filepath.Join(dir, "gossip.key"), []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
		return nil, err
	}
	return []string{
		"--peer-tls-cert", filepath.Join(dir, "{node}.crt"), "--peer-tls-key", filepath.Join(dir, "{node}.key"),
		"--peer-tls-ca", filepath.Join(dir, "ca.crt"), "--gossip-key-file", filepath.Join(dir, "gossip.key"),
	}, nil
}
