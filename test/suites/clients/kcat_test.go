package clients

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// kcat stands for librdkafka. Its default asks ApiVersions; the other way is to
// tell it that the broker is a 0.8.2, where it asks nothing.
var kcatModes = []struct {
	name string
	args []string
}{
	{"defaults", nil},
	{"0.8.2", []string{"-X", "api.version.request=false", "-X", "broker.version.fallback=0.8.2"}},
}

func kcat(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kcat", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("kcat %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

func needKcat(t *testing.T) {
	_, err := exec.LookPath("kcat")
	if err != nil {
		err = fmt.Errorf("kcat is not installed (apt-get install kcat): %w", err)
	}
	harness.Need(t, err)
}

func TestKcatProduceConsume(t *testing.T) {
	needKcat(t)
	c := harness.Shared(t)
	for _, r := range tcpRoutes(c) {
		for _, mode := range kcatModes {
			for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
				if mode.args != nil && (codec == "lz4" || codec == "zstd") {
					continue // 0.8.2 has lz4 for new consumers only
				}
				t.Run(r.name+"/"+mode.name+"/"+codec, func(t *testing.T) {
					topic := harness.Topic("kcat")
					mustCreate(t, c, topic, 1)
					text := strings.Join(lines(500), "\n") + "\n"
					base := append([]string{"-b", r.addr}, mode.args...)
					kcat(t, text, append(base, "-P", "-t", topic, "-p", "0", "-z", codec, "-X", "request.required.acks=-1")...)
					got := kcat(t, "", append(base, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q")...)
					if got != text {
						t.Fatalf("kcat reads %d bytes, wrote %d; first difference at %d", len(got), len(text), firstDifference(got, text))
					}
					if codec == "zstd" {
						return // a client of 0.8 cannot read it
					}
					for i, rec := range readBack(t, c, topic, 0, 500) {
						if string(rec.Value) != lines(500)[i] {
							t.Fatalf("franz-go reads %q at %d", rec.Value, i)
						}
					}
				})
			}
		}
	}
}

func TestKcatList(t *testing.T) {
	needKcat(t)
	c := harness.Shared(t)
	topic := harness.Topic("kcat-list")
	mustCreate(t, c, topic, 4)
	for _, r := range tcpRoutes(c) {
		for _, mode := range kcatModes {
			t.Run(r.name+"/"+mode.name, func(t *testing.T) {
				out := kcat(t, "", append([]string{"-b", r.addr, "-L", "-t", topic}, mode.args...)...)
				for _, want := range []string{"1 brokers:", " at " + r.addr, fmt.Sprintf("topic %q with 4 partitions", topic)} {
					if !strings.Contains(out, want) {
						t.Errorf("kcat -L does not show %q:\n%s", want, out)
					}
				}
			})
		}
	}
}

// Offsets by name and by number, keys, and the last n messages.
func TestKcatOffsetsAndKeys(t *testing.T) {
	needKcat(t)
	c := harness.Shared(t)
	topic := harness.Topic("kcat-offsets")
	mustCreate(t, c, topic, 1)
	var in strings.Builder
	for i := range 20 {
		fmt.Fprintf(&in, "k%d:v%d\n", i, i)
	}
	kcat(t, in.String(), "-b", c.ShimAddr(), "-P", "-t", topic, "-p", "0", "-K:")
	if got := kcat(t, "", "-b", c.ShimAddr(), "-C", "-t", topic, "-p", "0", "-o", "17", "-e", "-q", "-f", "%o %k %s\n"); got != "17 k17 v17\n18 k18 v18\n19 k19 v19\n" {
		t.Errorf("from offset 17: %q", got)
	}
	if got := kcat(t, "", "-b", c.ShimAddr(), "-C", "-t", topic, "-p", "0", "-o", "-2", "-e", "-q", "-f", "%o\n"); got != "18\n19\n" {
		t.Errorf("the last two: %q", got)
	}
}

func firstDifference(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
