package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/trimaran-io/trimaran/test/harness"
)

// connectFile is Kafka Connect, standalone: a file source and a file sink. What is
// appended to one file must be in the other, also after a restart of the worker.
func connectFile(ctx context.Context, a *attempt) error {
	topic := harness.Topic("connect")
	if err := os.MkdirAll(a.dir, 0o777); err != nil {
		return err
	}
	port, err := harness.FreePort()
	if err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(a.dir, name) }
	files := map[string]string{
		"worker.properties": `bootstrap.servers=` + a.bootstrap(a.way, nil) + `
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.file.filename=` + path("offsets") + `
offset.flush.interval.ms=1000
plugin.discovery=service_load
listeners=http://` + harness.Loopback(port) + `
`,
		"source.properties": `name=source-` + topic + `
connector.class=org.apache.kafka.connect.file.FileStreamSourceConnector
tasks.max=1
file=` + path("in.txt") + `
topic=` + topic + `
`,
		"sink.properties": `name=sink-` + topic + `
connector.class=org.apache.kafka.connect.file.FileStreamSinkConnector
tasks.max=1
file=` + path("out.txt") + `
topics=` + topic + `
`,
		"in.txt": "",
	}
	for name, content := range files {
		if err := os.WriteFile(path(name), []byte(content), 0o666); err != nil {
			return err
		}
	}
	if err := a.makeTopic(ctx, topic, 1); err != nil {
		return err
	}
	var want strings.Builder
	for round := range 2 {
		worker, err := a.startClient(ctx, fmt.Sprintf("connect-%d", round+1), "org.apache.kafka.connect.cli.ConnectStandalone",
			path("worker.properties"), path("source.properties"), path("sink.properties"))
		if err != nil {
			return err
		}
		worker.lax = true // its log is on stdout
		in, err := os.OpenFile(path("in.txt"), os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		for i := range 1000 {
			line := fmt.Sprintf("round %d, line %d\n", round, i)
			want.WriteString(line)
			if _, err := in.WriteString(line); err != nil {
				return err
			}
		}
		if err := in.Close(); err != nil {
			return err
		}
		err = a.await("the sink's file is the source's", func() (bool, error) {
			got, err := os.ReadFile(path("out.txt"))
			if err != nil && !os.IsNotExist(err) {
				return false, err
			}
			return string(got) == want.String(), worker.ended()
		})
		if err != nil {
			got, _ := os.ReadFile(path("out.txt"))
			return fmt.Errorf("%w (%d bytes of %d)", err, len(got), want.Len())
		}
		if err := worker.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		worker.wait(a.step) // Java ends with 143 after SIGTERM
	}
	return nil
}
