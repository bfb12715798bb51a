// Command nats is the client of NATS JetStream that bench measures with. It is a module of its own,
// which pins this client and the server, so that nothing else here depends on them.
//
// You are here: a child of bench. It makes its streams, says "ready", and for each line "run
// SECONDS" runs once and answers with one line of JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	servers  = flag.String("servers", "", "NAME=URL,… of all servers")
	name     = flag.String("name", "", "of the stream, or of all of them with a number behind")
	streams  = flag.Int("streams", 1, "streams, each with one subject")
	replicas = flag.Int("replicas", 3, "of each stream")
	size     = flag.Int("size", 1024, "bytes of a message")
	conns    = flag.Int("conns", 1, "connections")
	inFlight = flag.Int("inflight", 1, "messages of each connection that are not acknowledged")
	rate     = flag.Float64("rate", 0, "messages a second, of all connections together; 0: no bound")
	consume  = flag.Bool("consume", false, "read the streams instead")
)

// result is what one run gave.
type result struct {
	Messages int
	Seconds  float64
	Latency  []time.Duration
}

func main() {
	flag.Parse()
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
}

func serve() error {
	urls := map[string]string{}
	first := ""
	for _, s := range strings.Split(*servers, ",") {
		name, url, _ := strings.Cut(s, "=")
		if first == "" {
			first = url
		}
		urls[name] = url
	}
	to, err := makeStreams(first, urls)
	if err != nil {
		return err
	}
	var all []jetstream.JetStream
	for range max(1, *conns) {
		nc, err := nats.Connect(to)
		if err != nil {
			return err
		}
		defer nc.Close()
		js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(*inFlight+1))
		if err != nil {
			return err
		}
		all = append(all, js)
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var seconds float64
		if _, err := fmt.Sscanf(lines.Text(), "run %f", &seconds); err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		r, err := run(all, time.Duration(seconds*float64(time.Second)))
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			return err
		}
	}
	return lines.Err()
}

func stream(i int) string { return fmt.Sprintf("%s-%d", *name, i) }

// makeStreams gives the server to connect to: the one that leads, if there is one stream.
func makeStreams(first string, urls map[string]string) (string, error) {
	nc, err := nats.Connect(first)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return "", err
	}
	for i := range *streams {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		s, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: stream(i), Subjects: []string{stream(i)}, Replicas: *replicas, Storage: jetstream.FileStorage})
		if err != nil {
			return "", fmt.Errorf("stream %s: %w", stream(i), err)
		}
		if *streams > 1 {
			continue
		}
		info, err := s.Info(ctx)
		if err != nil {
			return "", err
		}
		if info.Cluster != nil && urls[info.Cluster.Leader] != "" {
			first = urls[info.Cluster.Leader]
		}
	}
	return first, nil
}

func run(all []jetstream.JetStream, window time.Duration) (r result, err error) {
	results, errs := make([]result, len(all)), make([]error, len(all))
	start := time.Now()
	if *consume {
		return read(all[0], window)
	}
	var wg sync.WaitGroup
	for i, js := range all {
		wg.Go(func() { results[i], errs[i] = publish(js, i, start, window) })
	}
	wg.Wait()
	r.Seconds = time.Since(start).Seconds()
	for _, one := range results {
		r.Messages += one.Messages
		r.Latency = append(r.Latency, one.Latency...)
	}
	return r, errors.Join(errs...)
}

// publish is one connection's part, the i-th.
func publish(js jetstream.JetStream, i int, start time.Time, window time.Duration) (r result, err error) {
	payload := make([]byte, *size)
	rng := rand.New(rand.NewPCG(1, uint64(*size)))
	for i := range payload {
		payload[i] = byte(rng.Uint32())
	}
	type sent struct {
		at     time.Time
		answer jetstream.PubAckFuture
	}
	waiting := make(chan sent, *inFlight)
	room := make(chan struct{}, *inFlight)
	failed := make(chan error, 1)
	go func() {
		defer close(waiting)
		for n := 0; time.Since(start) < window; n++ {
			at := time.Time{}
			if *rate > 0 {
				at = start.Add(time.Duration(float64(n*(*conns)+i) / *rate * float64(time.Second)))
				time.Sleep(time.Until(at))
			}
			room <- struct{}{}
			if at.IsZero() {
				at = time.Now()
			}
			answer, err := js.PublishAsync(stream((n*(*conns)+i)%*streams), payload)
			if err != nil {
				failed <- err
				return
			}
			waiting <- sent{at, answer}
		}
	}()
	for s := range waiting {
		select {
		case <-s.answer.Ok():
			r.Messages++
			r.Latency = append(r.Latency, time.Since(s.at))
		case e := <-s.answer.Err():
			err = e
		case <-time.After(time.Minute):
			err = errors.New("no answer for a minute")
		}
		<-room
	}
	select {
	case err = <-failed:
	default:
	}
	return r, err
}

// read takes all streams from their start until the window ends, or nothing came for a second.
func read(js jetstream.JetStream, window time.Duration) (r result, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), window+10*time.Second)
	defer cancel()
	came := make(chan struct{}, 1<<16)
	start := time.Now()
	for i := range *streams {
		c, err := js.OrderedConsumer(ctx, stream(i), jetstream.OrderedConsumerConfig{})
		if err != nil {
			return r, err
		}
		reading, err := c.Consume(func(jetstream.Msg) { came <- struct{}{} })
		if err != nil {
			return r, err
		}
		defer func() {
			reading.Stop()
			for {
				select {
				case <-came:
				case <-reading.Closed():
					return
				}
			}
		}()
	}
	last := start
	for time.Since(start) < window {
		select {
		case <-came:
			r.Messages++
			last = time.Now()
		case <-time.After(time.Second):
			r.Seconds = last.Sub(start).Seconds()
			return r, nil
		}
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}
