package commands

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

const exampleOutput = `produced  offset 0: three hulls
produced  offset 1: one boat
produced  offset 2: steady in a blow
consumed  offset 0: three hulls
consumed  offset 1: one boat
consumed  offset 2: steady in a blow
`

func TestGoExample(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("example-go")
	cli(c).ok(t, program(t, "trimaran"), "topic", "create", topic, "--partitions", "1")
	known(t, c, topic, 1)
	run := command{dir: harness.Root()}
	if got := run.ok(t, "go", "run", "./examples/go", "-gateway", c.Node(1).Addr(), "-topic", topic); got != exampleOutput {
		t.Errorf("it prints\n%s", got)
	}
}

// The Python example, through the proxy; see the clients' tests for where
// kafka-python comes from.
func TestPythonExample(t *testing.T) {
	python := os.Getenv("TRIMARAN_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.Command(python, "-c", "import kafka").CombinedOutput(); err != nil {
		harness.Need(t, fmt.Errorf("kafka-python is not there for %s (pip install -r examples/python/requirements.txt): %s", python, out))
	}
	c := harness.Shared(t)
	topic := harness.Topic("example-python")
	cli(c).ok(t, program(t, "trimaran"), "topic", "create", topic, "--partitions", "1")
	known(t, c, topic, 1)
	demo := filepath.Join(harness.Root(), "examples", "python", "demo.py")
	if got := (command{}).ok(t, python, demo, c.ShimAddr(), topic); got != exampleOutput {
		t.Errorf("it prints\n%s", got)
	}
}
