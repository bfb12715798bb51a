package clients

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// kafka-python with api_version=(0,8,0). TRIMARAN_PYTHON names the interpreter
// that has it (python3 by default). Without python-snappy its snappy part is left
// out there and said so.
func needKafkaPython(t *testing.T) string {
	python := os.Getenv("TRIMARAN_PYTHON")
	if python == "" {
		python = "python3"
	}
	out, err := exec.Command(python, "-c", "import kafka, snappy; print(kafka.__version__)").CombinedOutput()
	if err != nil {
		text := strings.TrimSpace(string(out))
		err = fmt.Errorf("kafka-python and python-snappy are not there for %s (pip install kafka-python==2.0.6 python-snappy==0.7.3): %s", python, text[strings.LastIndexByte(text, '\n')+1:])
	}
	harness.Need(t, err)
	return python
}

func TestKafkaPython(t *testing.T) {
	python := needKafkaPython(t)
	c := harness.Shared(t)
	for _, r := range tcpRoutes(c) {
		for _, codec := range []string{"none", "gzip", "snappy"} {
			t.Run(r.name+"/"+codec, func(t *testing.T) {
				topic := harness.Topic("python")
				mustCreate(t, c, topic, 2)
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				defer cancel()
				cmd := exec.CommandContext(ctx, python, filepath.Join("testdata", "roundtrip.py"), r.addr, topic, codec)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				for p := range int32(2) {
					for i, rec := range readBack(t, c, topic, p, 200) {
						if want := fmt.Sprintf("partition %d value %d", p, i); string(rec.Value) != want {
							t.Fatalf("franz-go reads %q at %d, want %q", rec.Value, i, want)
						}
					}
				}
			})
		}
	}
}
