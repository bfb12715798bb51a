package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// java is the tools' Java with arguments, ended with its context.
func (a *attempt) java(ctx context.Context, args ...string) *exec.Cmd {
	full := append(append([]string{}, a.command...), args...)
	cmd := exec.CommandContext(ctx, full[0], full[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// wordCount is Kafka Streams' word count, at least or exactly once as guarantee says, with its
// repartition and changelog topics. A second instance comes and goes in the middle, and one is
// started anew at the end: the counts must be right each time. In the pass with kills nodes die
// while the two work; exactly once, the counts are right nonetheless.
func wordCount(guarantee string) func(ctx context.Context, a *attempt) error {
	return func(ctx context.Context, a *attempt) error { return countWords(ctx, a, guarantee, false) }
}

// wordCountCompacted is wordCount exactly once, whose changelog is compacted all the while: the
// instance at the end has its state from what is left.
func wordCountCompacted(ctx context.Context, a *attempt) error {
	return countWords(ctx, a, "exactly_once_v2", true)
}

func countWords(ctx context.Context, a *attempt, guarantee string, compacted bool) error {
	in, out := harness.Topic("words"), harness.Topic("counts")
	for _, t := range []string{in, out} {
		if err := a.makeTopic(ctx, t, 3); err != nil {
			return err
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(a.driverAddr), kgo.DefaultProduceTopic(in),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeTopics(out), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	want, got := map[string]int{}, map[string]int{}
	write := func(round int) error {
		var records []*kgo.Record
		for i := range 500 {
			line := fmt.Sprintf("round%d all the words of line%d are counted", round, i%50)
			for _, w := range strings.Fields(line) {
				want[w]++
			}
			records = append(records, kgo.StringRecord(line))
		}
		return cl.ProduceSync(ctx, records...).FirstErr()
	}
	counted := func(instances ...*client) error {
		ctx, cancel := context.WithTimeout(ctx, a.step)
		defer cancel()
		right := func() bool {
			for w, n := range want {
				if got[w] != n {
					return false
				}
			}
			return true
		}
		for !right() {
			poll, done := context.WithTimeout(ctx, time.Second)
			cl.PollFetches(poll).EachRecord(func(r *kgo.Record) {
				// The last count of a word is the one that stands.
				got[string(r.Key)], _ = strconv.Atoi(string(r.Value))
			})
			done()
			for _, c := range instances {
				if err := c.ended(); err != nil {
					return err
				}
			}
			if ctx.Err() != nil {
				for w, n := range want {
					if got[w] != n {
						return fmt.Errorf("%w: %q is counted %d times, want %d", errDeadline, w, got[w], n)
					}
				}
			}
		}
		return nil
	}
	start := func(name string) (*client, error) {
		return a.startClient(ctx, name, "WordCount", a.bootstrap(a.way, nil), in+"-app", in, out, filepath.Join(a.dir, name), guarantee)
	}
	if err := write(1); err != nil {
		return err
	}
	one, err := start("streams-1")
	if err != nil {
		return err
	}
	if err := counted(one); err != nil {
		return err
	}
	changelog := in + "-app-counts-changelog"
	if compacted {
		if err := compactAtOnce(ctx, kadm.NewClient(cl), changelog); err != nil {
			return err
		}
	}
	two, err := start("streams-2")
	if err != nil {
		return err
	}
	stop := a.killInTurn(ctx)
	if err = write(2); err == nil {
		err = counted(one, two)
	}
	if err := errors.Join(err, stop()); err != nil {
		return fmt.Errorf("with two instances: %w", err)
	}
	for _, c := range []*client{one, two} {
		if err := a.leave(c); err != nil {
			return err
		}
	}
	if compacted {
		if err := a.untilCompacted(ctx, changelog); err != nil {
			return err
		}
	}
	if err := write(3); err != nil {
		return err
	}
	three, err := start("streams-3") // its state comes from the changelog
	if err != nil {
		return err
	}
	if err := counted(three); err != nil {
		return fmt.Errorf("after a restart: %w", err)
	}
	return a.leave(three)
}
