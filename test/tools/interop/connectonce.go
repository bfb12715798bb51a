package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// connectLines is how many lines each round of connectExactlyOnce appends to the file, connectBatch
// how many are in a transaction.
const (
	connectLines = 1500
	connectBatch = 20
)

// connectExactlyOnce is Kafka Connect, distributed, with exactly.once.source.support and a file
// source that requires it. Lines are appended in three rounds: a worker copies them; it dies by
// kill -9 in the middle, and another takes over; that one is stopped in the middle until a third
// has fenced it and works, and goes on then. A reader of committed records gets each line once, in
// the file's order. In the pass with kills nodes die all the while.
func connectExactlyOnce(ctx context.Context, a *attempt) error {
	return throughConnect(ctx, a, (*onceSource).rounds)
}

// throughConnect runs what is to be done with a file that goes through Connect, and a reader.
func throughConnect(ctx context.Context, a *attempt, rounds func(*onceSource, context.Context) error) error {
	if err := os.MkdirAll(a.dir, 0o777); err != nil {
		return err
	}
	c := &onceSource{attempt: a, topic: harness.Topic("connect-once"), file: filepath.Join(a.dir, "in.txt")}
	if err := errors.Join(os.WriteFile(c.file, nil, 0o666), a.makeTopic(ctx, c.topic, 1)); err != nil {
		return err
	}
	var err error
	c.reader, err = kgo.NewClient(append(harness.Seeds(a.driverAddr), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeTopics(c.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return err
	}
	defer c.reader.Close()
	stop := a.killInTurn(ctx)
	err = rounds(c, ctx)
	return errors.Join(err, stop())
}

// onceSource is the way of a file through Connect.
type onceSource struct {
	*attempt
	topic  string
	file   string
	reader *kgo.Client
	want   []string // lines of the file
	got    int      // that were read back
	ended  bool     // the record behind all others was read
	port   int      // of the newest worker's REST interface
}

func (c *onceSource) rounds(ctx context.Context) error {
	one, err := c.worker(ctx)
	if err != nil {
		return err
	}
	if err := c.configure(ctx, connectBatch); err != nil {
		return err
	}
	if err := errors.Join(c.write(1), c.readTo(ctx, len(c.want), one)); err != nil {
		return fmt.Errorf("round 1: %w", err)
	}

	if err := errors.Join(c.write(2), c.readTo(ctx, len(c.want)-connectLines*3/4, one)); err != nil {
		return fmt.Errorf("round 2: %w", err)
	}
	one.kill()
	<-one.done
	if err := c.inTheMiddle(ctx); err != nil {
		return err
	}
	two, err := c.worker(ctx)
	if err != nil {
		return err
	}
	if err := c.readTo(ctx, len(c.want), two); err != nil {
		return fmt.Errorf("round 2, after kill -9 of the worker: %w", err)
	}

	if err := errors.Join(c.write(3), c.readTo(ctx, len(c.want)-connectLines*3/4, two)); err != nil {
		return fmt.Errorf("round 3: %w", err)
	}
	if err := syscall.Kill(-two.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		return err
	}
	if err := c.inTheMiddle(ctx); err != nil {
		return err
	}
	three, err := c.worker(ctx)
	if err != nil {
		return err
	}
	if err := c.readTo(ctx, len(c.want)-connectLines/4, three); err != nil {
		return fmt.Errorf("round 3, while a worker is stopped: %w", err)
	}
	if err := syscall.Kill(-two.cmd.Process.Pid, syscall.SIGCONT); err != nil {
		return err
	}
	if err := c.readTo(ctx, len(c.want), three); err != nil {
		return fmt.Errorf("round 3, with two workers: %w", err)
	}
	for _, w := range []*client{two, three} {
		w.kill()
		<-w.done
	}
	return c.noMore(ctx)
}

// connectCompacted is connectExactlyOnce, but that Connect's three topics are compacted all the
// while, and a worker starts only when they have one record of each key: it has the source, its
// configuration and its place in the file from what is left.
func connectCompacted(ctx context.Context, a *attempt) error {
	return throughConnect(ctx, a, (*onceSource).compactedRounds)
}

func (c *onceSource) compactedRounds(ctx context.Context) error {
	topics := []string{c.topic + "-configs", c.topic + "-offsets", c.topic + "-status"}
	one, err := c.worker(ctx)
	if err != nil {
		return err
	}
	// Each change is a record of the same key.
	for batch := connectBatch + 5; batch >= connectBatch; batch-- {
		if err := c.configure(ctx, batch); err != nil {
			return err
		}
	}
	if err := compactAtOnce(ctx, kadm.NewClient(c.reader), topics...); err != nil {
		return err
	}
	for round := 1; ; round++ {
		if err := errors.Join(c.write(round), c.readTo(ctx, len(c.want)-connectLines/2, one)); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		// Not killed: what is behind a transaction that stays open is not compacted.
		if err := syscall.Kill(one.cmd.Process.Pid, syscall.SIGTERM); err != nil {
			return err
		}
		one.wait(c.step) // Java ends with 143 after SIGTERM
		if round == 3 {
			break
		}
		if err := c.untilCompacted(ctx, topics...); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if one, err = c.worker(ctx); err != nil {
			return err
		}
		if err := c.readTo(ctx, len(c.want), one); err != nil {
			return fmt.Errorf("round %d, by a worker that starts from compacted topics: %w", round, err)
		}
	}
	return c.noMore(ctx)
}

// worker starts a worker of the application. All have the same configuration but for their ports.
func (c *onceSource) worker(ctx context.Context) (*client, error) {
	var err error
	if c.port, err = harness.FreePort(); err != nil {
		return nil, err
	}
	file := filepath.Join(c.dir, fmt.Sprintf("worker-%d.properties", c.port))
	err = os.WriteFile(file, fmt.Appendf(nil, `bootstrap.servers=%s
group.id=%s-workers
exactly.once.source.support=enabled
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
config.storage.topic=%[2]s-configs
offset.storage.topic=%[2]s-offsets
status.storage.topic=%[2]s-status
offset.storage.partitions=3
listeners=http://%[3]s
session.timeout.ms=6000
heartbeat.interval.ms=1500
scheduled.rebalance.max.delay.ms=0
plugin.discovery=service_load
`, c.bootstrap(c.way, nil), c.topic, harness.Loopback(c.port)), 0o666)
	if err != nil {
		return nil, err
	}
	w, err := c.startClient(ctx, "worker", "org.apache.kafka.connect.cli.ConnectDistributed", file)
	if err == nil {
		w.lax = true // its log is on stdout
	}
	return w, err
}

// configure tells the workers of the source; batch is how many lines a transaction has.
func (c *onceSource) configure(ctx context.Context, batch int) error {
	config, err := json.Marshal(map[string]string{
		"connector.class":      "org.apache.kafka.connect.file.FileStreamSourceConnector",
		"exactly.once.support": "required",
		"transaction.boundary": "poll",
		"tasks.max":            "1",
		"batch.size":           fmt.Sprint(batch),
		"file":                 c.file,
		"topic":                c.topic,
	})
	if err != nil {
		return err
	}
	last := errors.New("it was not asked")
	err = c.await("the worker takes the source", func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+harness.Loopback(c.port)+"/connectors/source/config", bytes.NewReader(config))
		if err != nil {
			return false, err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err
			return false, nil
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		last = fmt.Errorf("%s: %s", resp.Status, text)
		return resp.StatusCode == http.StatusCreated || resp.StatusCode == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("%w (%w)", err, last)
	}
	return nil
}

// write appends a round's lines to the file.
func (c *onceSource) write(round int) error {
	var lines []string
	for i := range connectLines {
		lines = append(lines, fmt.Sprintf("round %d, line %d", round, i))
	}
	return c.appendLines(lines...)
}

func (c *onceSource) appendLines(lines ...string) error {
	file, err := os.OpenFile(c.file, os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	c.want = append(c.want, lines...)
	_, err = file.WriteString(strings.Join(lines, "\n") + "\n")
	return errors.Join(err, file.Close())
}

// readTo reads until n lines are there, and holds each against the file.
func (c *onceSource) readTo(ctx context.Context, n int, worker *client) error {
	// A worker that comes while nodes are killed waits for them at each of its many steps.
	within := 2 * c.deadline()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for c.got < n {
		before := c.got
		err := c.poll(ctx)
		if err == nil && c.got == before {
			// What is behind a full batch the source looks at once the file has grown.
			err = c.appendLines(fmt.Sprintf("line %d", len(c.want)))
		}
		if err = errors.Join(err, worker.ended()); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w (%s): %d of %d lines came", errDeadline, within, c.got, n)
		}
	}
	return nil
}

// poll takes what comes within a second.
func (c *onceSource) poll(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, time.Second)
	defer done()
	return c.take(c.reader.PollFetches(ctx))
}

// noMoreLines is the record that noMore writes.
const noMoreLines = "no more"

// take holds what was read against the file.
func (c *onceSource) take(f kgo.Fetches) (err error) {
	f.EachRecord(func(r *kgo.Record) {
		switch line := string(r.Value); {
		case err != nil:
		case line == noMoreLines:
			c.ended = true
		case c.got == len(c.want):
			err = fmt.Errorf("offset %d: %q comes after all lines of the file", r.Offset, line)
		case line != c.want[c.got]:
			err = fmt.Errorf("offset %d has %q, want %q", r.Offset, line, c.want[c.got])
		default:
			c.got++
		}
	})
	return err
}

// inTheMiddle reads what the worker did before it was disturbed, and reports an error when that is
// nearly all.
func (c *onceSource) inTheMiddle(ctx context.Context) error {
	for before := -1; c.got != before; {
		before = c.got
		if err := c.poll(ctx); err != nil {
			return err
		}
	}
	if c.got > len(c.want)-2*connectBatch {
		return errors.New("the worker had copied all lines already: nothing was tried")
	}
	return nil
}

// noMore reads to a record behind all others: no line comes twice.
func (c *onceSource) noMore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.deadline())
	defer cancel()
	if err := c.reader.ProduceSync(ctx, &kgo.Record{Topic: c.topic, Value: []byte(noMoreLines)}).FirstErr(); err != nil {
		return err
	}
	for !c.ended {
		if err := c.poll(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: the last record does not come", errDeadline)
		}
	}
	return nil
}
