package peertls_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/peertls"
	"github.com/trimaran-io/trimaran/security/certs"
)

// BenchmarkCall compares a call between two nodes in plaintext and over TLS: 32 at once of 1 KiB
// each, and two at once of 1 MiB. A write over TLS may be several system calls.
func BenchmarkCall(b *testing.B) {
	dir := b.TempDir()
	ca, err := certs.NewCA(time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	save := func(name string, p certs.Pair, err error) {
		if err == nil {
			_, _, err = p.Save(dir, name, false)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	save("ca", ca.Pair, nil)
	for _, id := range []string{"n1", "n2"} {
		p, err := ca.Node(id, nil, time.Hour)
		save(id, p, err)
	}
	for _, secured := range []bool{false, true} {
		name := map[bool]string{false: "plaintext", true: "TLS"}[secured]
		for _, size := range []int{1 << 10, 1 << 20} {
			b.Run(name+map[int]string{1 << 10: "/1KiB", 1 << 20: "/1MiB"}[size], func(b *testing.B) {
				addr := ""
				node := func(id string) *link.Link {
					ln, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						b.Fatal(err)
					}
					cfg := link.Config{
						Self: id + ".00000000", Listener: ln,
						Resolve: func(string) (string, bool) { return addr, true },
						Handler: func(context.Context, string, uint8, []byte) []byte { return nil },
					}
					if secured {
						file := func(s string) string { return filepath.Join(dir, s) }
						g, err := peertls.New(peertls.Config{Files: certs.Files{Cert: file(id + ".crt"), Key: file(id + ".key"), CA: file("ca.crt")}})
						if err != nil {
							b.Fatal(err)
						}
						cfg.Listener, cfg.Dial = g.Listener(ln), g.Dialer(nil)
					}
					l := link.New(cfg)
					l.Start()
					b.Cleanup(func() { _ = l.Close() })
					addr = ln.Addr().String()
					return l
				}
				from := node("n1")
				node("n2")
				payload := make([]byte, size)
				b.SetBytes(int64(size))
				b.SetParallelism(map[int]int{1 << 10: 16, 1 << 20: 1}[size])
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := from.Call(context.Background(), "n2.00000000", 1, payload); err != nil {
							b.Error(err)
							return
						}
					}
				})
				s := from.Stats()
				b.ReportMetric(float64(s.Writes)/float64(b.N), "writes/op")
			})
		}
	}
}
