// Producerstate has Kafka's own ProducerStateManager take batches and markers by chance, and writes
// down what became of each, for fsm's TestProducersAreAsKafkas. It needs java, javac and mvn.
//
//	go run ./suites/oracle/producerstate -out ../fsm/testdata/producers
//	go run ./suites/oracle/producerstate -seed 100 -seeds 500 -out /tmp/more
//	TRIMARAN_PRODUCER_STATES=/tmp/more go test -run ProducersAreAsKafkas ../fsm
package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/trimaran-io/trimaran/test/harness"
)

//go:embed ProducerStates.java
var source []byte

func main() {
	version := flag.String("kafka", "4.3.1", "version of Kafka")
	seed := flag.Int("seed", 1, "the first seed")
	seeds := flag.Int("seeds", 6, "how many")
	steps := flag.Int("steps", 500, "batches and markers of each")
	out := flag.String("out", "", "folder for the file")
	flag.Parse()
	if err := record(*version, *out, *seed, *seeds, *steps); err != nil {
		fmt.Fprintln(os.Stderr, "producerstate:", err)
		os.Exit(1)
	}
}

func record(version, out string, seed, seeds, steps int) (err error) {
	if out == "" {
		return errors.New("-out is needed")
	}
	lib, err := harness.KafkaJars(version)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "producerstate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "ProducerStates.java")
	if err := errors.Join(os.MkdirAll(out, 0o777), os.WriteFile(program, source, 0o666)); err != nil {
		return err
	}
	// Compiled, not run from its source: Kafka's package is one only in one class loader.
	jars := filepath.Join(lib, "*")
	if err := harness.Tool(dir, "javac", "-cp", jars, "-d", dir, program); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(out, fmt.Sprintf("kafka-%s-from-%d.txt", version, seed)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	cmd := exec.Command("java", "-cp", dir+string(filepath.ListSeparator)+jars, "org.apache.kafka.storage.internals.log.ProducerStates",
		strconv.Itoa(seed), strconv.Itoa(seeds), strconv.Itoa(steps))
	cmd.Stdout = f
	return cmd.Run()
}
