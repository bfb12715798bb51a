package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// bystander writes to a topic of its own, one record after the other.
type bystander struct {
	stop context.CancelFunc
	work sync.WaitGroup

	written int
	longest time.Duration // between two acknowledgements
	err     error
}

const (
	bystanderTopic = "bystander"
	bystanderPause = 10 * time.Millisecond
)

func startBystander(ctx context.Context, c *harness.Cluster) (*bystander, error) {
	if err := c.CreateTopic(ctx, bystanderTopic, 1, 3); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic(bystanderTopic), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	b := &bystander{stop: cancel}
	b.work.Go(func() {
		defer cl.Close()
		for last := time.Now(); ; b.written++ {
			err := cl.ProduceSync(ctx, kgo.StringRecord("somebody else")).FirstErr()
			b.longest = max(b.longest, time.Since(last))
			if err != nil {
				if ctx.Err() == nil {
					b.err = fmt.Errorf("a plain producer is refused: %w", err)
				}
				return
			}
			last = time.Now()
			select {
			case <-ctx.Done():
				return
			case <-time.After(bystanderPause):
			}
		}
	})
	return b, nil
}

// end stops it and prints what it has seen.
func (b *bystander) end() error {
	b.stop()
	b.work.Wait()
	fmt.Printf("  a plain producer beside: %d records, longest wait for an acknowledgement %.2f s\n", b.written, b.longest.Seconds())
	if b.written == 0 {
		return errors.Join(b.err, errors.New("the plain producer wrote nothing"))
	}
	return b.err
}
