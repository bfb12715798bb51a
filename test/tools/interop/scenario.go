package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// partitions is the number of partitions of a client's topic.
const partitions = 6

// attempt is one client on its way through the scenario.
type attempt struct {
	*bench
	prepared
	way       string
	mechanism string        // by which it logs in, with -secured
	entered   time.Duration // how long its last login took
	pass      string
	dir       string // logs
	topic     string
	wrote     []string // codecs
	notes     []string
	lacks     []string      // codecs
	first     *harness.Node // leads partition 0 and comes first in the bootstrap list

	mu      sync.Mutex
	runs    int
	clients []*client
	restart sync.WaitGroup
	killErr error
}

// chunk is what one producer process writes.
type chunk struct {
	codec   string
	records []record
}

// do runs the scenario:
//
//	create    the client makes a topic
//	produce   with each codec, 10,000 keyed records
//	group     one consumer starts when the first codec is written, a second joins
//	          while others are being written, both read to the end, commit, leave
//	restart   more is written; a new member must get this and nothing older
//	read      everything again, without a group
//	cross     everything is read by franz-go of today, and held to 0.8
//
// In the pass with kills the leader of partition 0 is killed with kill -9 in the
// middle of the second chunk, while the group reads, and restarted.
func (a *attempt) do(ctx context.Context) error {
	if a.run != nil {
		return a.run(ctx, a)
	}
	a.topic = harness.Topic("interop-" + strings.NewReplacer(" ", "-", "/", "-", "@", "").Replace(a.name))
	if err := a.create(ctx); err != nil {
		return err
	}
	if a.pass == "kill" {
		n, err := a.cluster.Leader(a.topic, 0, a.step)
		if err != nil {
			return err
		}
		a.first = n
	}
	var chunks []chunk
	for _, codec := range a.codecs {
		chunks = append(chunks, chunk{codec, batch(codec, a.records)})
	}
	for len(chunks) < 3 {
		codec := a.codecs[len(chunks)%len(a.codecs)]
		chunks = append(chunks, chunk{codec, batch(fmt.Sprintf("%s-%d", codec, len(chunks)), a.records)})
	}
	withGroup := a.groups && !a.noGroup
	var written []record
	var codecs []string
	var err error
	if withGroup {
		written, codecs, err = a.group(ctx, chunks)
	} else {
		for i, c := range chunks {
			var was bool
			if was, err = a.produce(ctx, c, a.pass == "kill" && i == 1); err != nil {
				break
			}
			if was {
				written, codecs = append(written, c.records...), append(codecs, c.codec)
			}
		}
	}
	// The node comes back before anything else is said, so that the next client
	// finds a whole cluster.
	a.restart.Wait()
	if err = errors.Join(err, a.killErr); err != nil {
		return err
	}
	a.wrote = unique(codecs)
	if !a.groups && !a.noGroup {
		a.note("consumer groups were left out")
	}
	if a.groups || !a.groupReads {
		if err := a.readBack(ctx, written); err != nil {
			return err
		}
	}
	return a.cross(ctx, written, codecs)
}

func (a *attempt) note(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notes = append(a.notes, fmt.Sprintf(format, args...))
}

// lack notes a codec that the client knows in general and not as it was built here.
func (a *attempt) lack(codec string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lacks = unique(append(a.lacks, codec))
}

func (a *attempt) trace(format string, args ...any) {
	if a.verbose {
		say("     %s (%s, %s): %s", a.name, a.mode, a.way, fmt.Sprintf(format, args...))
	}
}

// deadline is how long a step may take; a kill may strand a client that knows one
// node only until that node is back.
func (a *attempt) deadline() time.Duration {
	if a.pass == "kill" {
		return a.step * 2
	}
	return a.step
}

func (a *attempt) args(step string, argument any) []string {
	return []string{a.bootstrap(a.way, a.first), a.mode, step, a.topic, fmt.Sprint(argument)}
}

// create makes the topic: the client itself where it can, and then waits until
// each node serves it.
func (a *attempt) create(ctx context.Context) error {
	a.trace("create")
	if a.noAdmin {
		return a.makeTopic(ctx, a.topic, partitions)
	}
	c, err := a.startClient(ctx, "create", a.args("create", partitions)...)
	if err != nil {
		return err
	}
	if err := c.wait(a.deadline()); err != nil {
		return err
	}
	return a.awaitTopic()
}

// produce writes one chunk. It is false when the client has no such codec. With
// kill the leader of partition 0 dies when half of the records are handed over.
func (a *attempt) produce(ctx context.Context, c chunk, kill bool) (bool, error) {
	a.trace("produce %d records, %s", len(c.records), c.codec)
	p, err := a.startClient(ctx, "produce-"+c.codec, a.args("produce", c.codec)...)
	if err != nil {
		return false, err
	}
	half := len(c.records)
	if kill {
		half /= 2
	}
	feed := make(chan error, 1)
	go func() {
		_, err := p.stdin.Write(lines(c.records[:half]))
		if kill && err == nil {
			a.kill9()
			_, err = p.stdin.Write(lines(c.records[half:]))
		}
		feed <- errors.Join(err, p.stdin.Close())
	}()
	if err := p.wait(a.deadline()); err != nil {
		return false, err
	}
	if why, is := p.heard("unsupported"); is {
		a.lack(c.codec)
		a.note("no %s: %s", c.codec, why)
		return false, nil
	}
	if err := <-feed; err != nil {
		return false, fmt.Errorf("%s took only a part of the records: %w", p.step, err)
	}
	said, _ := p.heard("produced")
	if n, err := strconv.Atoi(said); err != nil || n != len(c.records) {
		return false, fmt.Errorf("%s says %q acknowledged, want %d", p.step, said, len(c.records))
	}
	return true, nil
}

// kill9 kills the node that leads partition 0 and starts it again after 3 seconds.
func (a *attempt) kill9() {
	n, err := a.cluster.Leader(a.topic, 0, 30*time.Second)
	if err != nil {
		a.killErr = err
		return
	}
	a.trace("kill -9 %s", n.ID)
	if err := n.Kill9(); err != nil {
		a.killErr = err
		return
	}
	a.restart.Go(func() {
		<-time.After(3 * time.Second)
		a.trace("restart %s", n.ID)
		if err := n.Restart(); err != nil {
			a.killErr = err
		}
	})
}

// readBack reads without a group.
func (a *attempt) readBack(ctx context.Context, written []record) error {
	a.trace("read %d records", len(written))
	want := len(written)
	if a.pass == "kill" { // what the log holds, doubled records included
		ends, err := a.ends(ctx)
		if err != nil {
			return err
		}
		want = 0
		for _, e := range ends {
			want += int(e)
		}
	}
	c, err := a.startClient(ctx, "read", a.args("read", want)...)
	if err != nil {
		return err
	}
	c.stdin.Close()
	if err := c.wait(a.deadline()); err != nil {
		return fmt.Errorf("%w (%d of %d records came)", err, c.count(), want)
	}
	doubled, err := check(written, c.got(), a.rules(false))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if doubled > 0 {
		a.note("%d records are in the log twice: its producer is not idempotent", doubled)
	}
	return nil
}

// rules are what the client promises at its settings.
func (a *attempt) rules(group bool) rules {
	retries := a.pass == "kill" && !a.idempotent
	return rules{headers: !a.noHeaders, repeats: group, doubled: retries, unordered: retries}
}

// end ends what is left of the client's processes.
func (a *attempt) end() {
	a.restart.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.clients {
		c.kill()
		<-c.done
	}
}

// tail gives the last lines of the logs of the last three steps.
func (a *attempt) tail(n int) string {
	logs, _ := filepath.Glob(filepath.Join(a.dir, "*.log"))
	sort.Strings(logs)
	var out strings.Builder
	for _, l := range logs[max(0, len(logs)-3):] {
		if st, err := os.Stat(l); err == nil && st.Size() > 0 {
			fmt.Fprintf(&out, "  == %s\n%s\n", filepath.Base(l), tailOf(l, n))
		}
	}
	return out.String()
}

func unique(in []string) []string {
	var out []string
	for _, s := range in {
		known := false
		for _, o := range out {
			known = known || o == s
		}
		if !known {
			out = append(out, s)
		}
	}
	return out
}
