package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// otherACLs are in the way of a request besides the one that allows it.
const otherACLs = 1000

// secured measures what rights, and TLS between nodes and to clients, take of the throughput: the
// clusters run side by side and are measured in turns, each while the others idle. What one
// question about a right costs Go's benchmarks say.
func (b *bench) secured() error {
	if err := benchmarkRights(); err != nil {
		return err
	}
	b.count++
	dir := filepath.Join(b.fast(), fmt.Sprint(b.count))
	defer os.RemoveAll(dir)
	clusters, err := b.securedClusters(dir)
	defer func() {
		for _, c := range clusters {
			c.Close()
		}
	}()
	if err != nil {
		return err
	}
	header()
	plain, judged, peers := clusters[0], clusters[1], clusters[2]
	encrypted := ways(plain)[0]
	node := plain.Node(1).Addr()
	encrypted.dial = func() (net.Conn, error) { return tls.Dial("tcp", node, &tls.Config{InsecureSkipVerify: true}) }
	kinds := []struct {
		c *harness.Cluster
		w way
	}{{plain, ways(plain)[0]}, {judged, ways(judged)[0]}, {peers, ways(peers)[0]}, {plain, encrypted}}
	var all []way
	for i, name := range []string{"plaintext", fmt.Sprintf("%d ACLs", otherACLs+2), "TLS between nodes", "TLS to clients"} {
		w := kinds[i].w
		w.name = name
		all = append(all, w)
	}
	topics := map[*harness.Cluster]string{}
	for _, c := range clusters {
		if topics[c], err = topic(c, "secured", 1); err != nil {
			return err
		}
	}
	clusterOf := func(w way) *harness.Cluster {
		for i := range all {
			if all[i].name == w.name {
				return kinds[i].c
			}
		}
		return nil
	}
	for _, inFlight := range []int{5, 64} {
		err := inTurns(all, fmt.Sprintf("produce 16 KB, %d in flight", inFlight), func(w way) (result, error) {
			c := clusterOf(w)
			l := load{topic: topics[c], partitions: 1, p: batch(16<<10, false), conns: 1, inFlight: inFlight, trim: true}
			return l.produce(c, w, b.window)
		})
		if err != nil {
			return err
		}
	}
	filled := map[*harness.Cluster]string{}
	for _, c := range clusters {
		if filled[c], err = b.fill(c, "secured-fetch", 1, readTotal/4); err != nil {
			return err
		}
	}
	return inTurns(all, "fetch, 1 MB each", func(w way) (result, error) {
		c := clusterOf(w)
		return fetchAll(c, w, filled[c], 1, batch(16<<10, false), enough)
	})
}

// securedClusters gives one in plaintext whose clients may use TLS, one that judges rights, and one
// with TLS between its nodes. Those that were started are given with an error, too.
func (b *bench) securedClusters(dir string) (all []*harness.Cluster, err error) {
	for _, name := range []string{"plain", "judged", "peers", "secrets"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o777); err != nil {
			return nil, err
		}
	}
	cert, key := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	if err := serverCertificate(cert, key); err != nil {
		return nil, err
	}
	peers, err := harness.PeerTLS(filepath.Join(dir, "secrets"), 3)
	if err != nil {
		return nil, err
	}
	for _, x := range []struct {
		name string
		args []string
	}{{"plain", []string{"--tls-cert", cert, "--tls-key", key}}, {"judged", []string{"--authorize"}}, {"peers", peers}} {
		c, err := harness.Start(harness.Options{Dir: filepath.Join(dir, x.name), NodeArgs: x.args, Env: small, Program: b.program, NoShim: true})
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, giveRights(all[1])
}

// giveRights lets everybody do what the measurement does, beside ACLs about others.
func giveRights(c *harness.Cluster) error {
	program, err := harness.Program("trimaran")
	if err != nil {
		return err
	}
	add := func(args ...string) error {
		args = append([]string{"acl", "add", "--brokers", "unix:" + c.Node(1).Data, "--principal"}, args...)
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("acl add: %w: %s", err, out)
		}
		return nil
	}
	var names []string
	for i := range otherACLs / 2 {
		names = append(names, fmt.Sprint("team-", i%50, ".topic-", i))
	}
	if err := add("User:ANONYMOUS", "--topic-prefix", "bench-", "--operation", "all"); err != nil {
		return err
	}
	// Status is for who may see the cluster.
	if err := add("User:ANONYMOUS", "--cluster", "--operation", "describe"); err != nil {
		return err
	}
	return add("User:alice", "--topic", strings.Join(names, ","), "--operation", "read,write")
}

// benchmarkRights prints what Go's benchmarks say of one question: is this allowed?
func benchmarkRights() error {
	fmt.Println("  one question about a right, of 10,000 ACLs; nothing is remembered between two questions")
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "BenchmarkRights|BenchmarkDecide", "-benchtime", "200ms", "./gateway", "./security/acl")
	cmd.Dir = harness.Root()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test -bench: %w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "Benchmark") {
			fmt.Print("  ", line)
		}
	}
	return nil
}

func serverCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}
