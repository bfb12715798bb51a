package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/test/harness"
)

// The versions that are measured, from Maven's repository and Go's module proxy. nats/go.mod pins
// that server and its client.
const (
	kafkaVersion = "4.4.0"
	klitePath    = "github.com/klaudworks/klite/cmd/klite"
	kliteVersion = "v0.2.0"
)

// system is what is measured.
type system struct {
	name, what string
	nats       bool
	start      func(b *bench, dir string) (*running, error)
}

var systems = []system{
	{name: "trimaran", what: "Trimaran, three nodes, replication factor 3", start: startTrimaran},
	{name: "kafka", what: "Apache Kafka " + kafkaVersion + ", three brokers, replication factor 3, min.insync.replicas=2, as it comes: no fsync", start: startKafka(nil)},
	{name: "kafka-safe", what: "The same with flush.messages=1: fsync before a record is acknowledged", start: startKafka(map[string]*string{"flush.messages": ptr("1")})},
	{name: "nats", what: "NATS JetStream, three servers, streams with three replicas, as it comes: sync_interval 2m", nats: true, start: startNATS("")},
	{name: "nats-always", what: "The same with sync_interval: always", nats: true, start: startNATS("sync_interval: always")},
	{name: "klite", what: "klite " + kliteVersion + ", one node, which does not replicate, as it comes", start: startKlite},
}

func ptr[T any](v T) *T { return &v }

// running is a system that was started.
type running struct {
	processes []*harness.Process
	stop      func()
	seeds     []string      // of Kafka's protocol
	warm      time.Duration // before anything is measured
	makeTopic func(name string, partitions int) error
	leaders   func(name string, partitions int) (map[string][]int32, error)
	nats      func(s shape, topic string) (driver, error) // nil for all but NATS
	// messages gives how many nodes have sent each other; nil: nobody counts them
	messages func() (float64, error)
	topics   map[string]bool
}

// driver makes the load's topic, if it is not there, and the client.
func (r *running) driver(s shape) (driver, error) {
	name := "versus-" + s.topic
	if r.nats != nil {
		return r.nats(s, name)
	}
	if !r.topics[name] {
		if err := r.makeTopic(name, s.partitions); err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, err)
		}
		r.topics[name] = true
	}
	leaders, err := r.leaders(name, s.partitions)
	if err != nil {
		return nil, err
	}
	if !s.franz {
		return &rawClient{load{topic: name, partitions: s.partitions, p: batch(s.size, false), conns: s.conns, inFlight: s.inFlight, perSecond: s.perSecond}, leaders}, nil
	}
	seeds := r.seeds
	if len(leaders) == 1 {
		for addr := range leaders {
			seeds = []string{addr}
		}
	}
	return newFranz(s, name, seeds)
}

// warmUp runs loads of one partition in turn, as long as the system wants.
func (r *running) warmUp() error {
	start := time.Now()
	for time.Since(start) < r.warm {
		for _, s := range shapes {
			if s.partitions > 1 || s.consume || s.perSecond > 0 || time.Since(start) >= r.warm {
				continue
			}
			d, err := r.driver(s)
			if err != nil {
				return err
			}
			_, err = d.run(min(3*time.Second, r.warm/8))
			d.close()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	fmt.Printf("  warmed for %.0f s, and %.0f s before each load\n", time.Since(start).Seconds(), (r.warm / 12).Seconds())
	return nil
}

func startTrimaran(b *bench, dir string) (*running, error) { return startNodes(b.program, dir) }

func startNodes(program, dir string) (*running, error) {
	c, err := harness.Start(harness.Options{Dir: dir, NoShim: true, Program: program})
	r := &running{stop: func() { c.Close() }, topics: map[string]bool{}}
	if err != nil {
		return r, err
	}
	for _, n := range c.Nodes {
		r.processes = append(r.processes, &n.Process)
	}
	r.seeds = []string{c.Node(1).Addr()}
	r.messages = func() (float64, error) {
		m, err := c.Metrics(messagesMetric)
		return m[messagesMetric], err
	}
	r.makeTopic = func(name string, partitions int) error {
		if err := c.CreateTopic(context.Background(), name, int32(partitions), 3); err != nil {
			return err
		}
		return quiet(c)
	}
	r.leaders = func(name string, partitions int) (map[string][]int32, error) {
		to := c.Node(1)
		if partitions == 1 {
			if to, err = c.Leader(name, 0, time.Minute); err != nil {
				return nil, err
			}
		}
		return map[string][]int32{to.Addr(): upTo(partitions)}, nil
	}
	return r, nil
}

func upTo(n int) (out []int32) {
	for i := range n {
		out = append(out, int32(i))
	}
	return out
}

// kafkaTopics makes topics, and finds leaders, by Kafka's own requests.
func (r *running) kafkaTopics(replicas int16, configs map[string]*string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.seeds...))
	if err != nil {
		return err
	}
	admin, stop := kadm.NewClient(cl), r.stop
	r.stop = func() { cl.Close(); stop() }
	r.leaders = func(name string, partitions int) (map[string][]int32, error) {
		found := map[string][]int32{}
		err := harness.Eventually(30*time.Second, func() bool {
			clear(found)
			m, err := metadata(cl, name)
			if err != nil || len(m.Topics) != 1 {
				return false
			}
			led := 0
			for _, p := range m.Topics[0].Partitions {
				for _, broker := range m.Brokers {
					if broker.NodeID == p.Leader && len(p.ISR) >= int(replicas) {
						addr := net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port)))
						found[addr] = append(found[addr], p.Partition)
						led++
					}
				}
			}
			return led == partitions
		})
		return found, err
	}
	r.makeTopic = func(name string, partitions int) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := admin.CreateTopic(ctx, int32(partitions), replicas, configs, name)
		return err
	}
	last := errors.New("nothing asked")
	err = harness.Eventually(2*time.Minute, func() bool {
		for _, p := range r.processes {
			if !p.Running() {
				last = fmt.Errorf("%s has ended", p.Args[len(p.Args)-1])
				return true
			}
		}
		var m *kmsg.MetadataResponse
		if m, last = metadata(cl); last == nil && len(m.Brokers) != len(r.seeds) {
			last = fmt.Errorf("%d of %d brokers are there", len(m.Brokers), len(r.seeds))
		}
		return last == nil
	})
	if last != nil {
		for _, p := range r.processes {
			last = fmt.Errorf("%w\n  %s", last, p.Tail(2))
		}
		return last
	}
	return err
}

// metadata asks for brokers and topics. kadm would answer from what its client heard minutes ago.
func metadata(cl *kgo.Client, topics ...string) (*kmsg.MetadataResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	return req.RequestWith(ctx, cl)
}

// brokerConfigs are what a Kafka of processes, each broker and controller, must be told.
const brokerConfigs = `process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
listeners=PLAINTEXT://%s,CONTROLLER://%s
advertised.listeners=PLAINTEXT://%[3]s
controller.listener.names=CONTROLLER
log.dirs=%[5]s
`

// javaFlags are those of Kafka's own start script, and its log has what should not be.
var javaFlags = []string{"-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
	"-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
	"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"}

func startKafka(configs map[string]*string) func(*bench, string) (*running, error) {
	return func(b *bench, dir string) (*running, error) {
		r, err := startBrokers(dir, 3, "min.insync.replicas=2\n")
		if err != nil {
			return r, err
		}
		r.warm = b.warm
		return r, r.kafkaTopics(3, configs)
	}
}

// startBrokers starts so many brokers with further lines of configuration, and flags of Java's.
func startBrokers(dir string, brokers int, lines string, flags ...string) (*running, error) {
	lib, err := harness.KafkaJars(kafkaVersion)
	if err != nil {
		return nil, err
	}
	r := &running{topics: map[string]bool{}}
	r.stop = func() { r.kill() }
	var offsets []int
	for i := range 2 * brokers {
		offsets = append(offsets, i)
	}
	ports, err := harness.FreePortBase(offsets...)
	if err != nil {
		return r, err
	}
	var voters []string
	for i := range brokers {
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, harness.Loopback(ports+brokers+i)))
	}
	class := filepath.Join(lib, "*")
	for i := range brokers {
		data := filepath.Join(dir, strconv.Itoa(i+1))
		properties := data + ".properties"
		text := fmt.Appendf(nil, brokerConfigs, i+1, strings.Join(voters, ","), harness.Loopback(ports+i), harness.Loopback(ports+brokers+i), data)
		if err := os.WriteFile(properties, append(text, lines...), 0o666); err != nil {
			return r, err
		}
		if err := harness.Tool(dir, "java", "-cp", class, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", properties); err != nil {
			return r, err
		}
		p := &harness.Process{Name: "kafka", Path: "java", Args: slices.Concat(javaFlags, flags, []string{"-cp", class, "kafka.Kafka", properties}), Log: data + ".log"}
		if err := p.Start(); err != nil {
			return r, err
		}
		r.processes = append(r.processes, p)
		r.seeds = append(r.seeds, harness.Loopback(ports+i))
	}
	return r, nil
}

func startKlite(b *bench, dir string) (*running, error) {
	program := b.klite
	if program == "" {
		cache, err := harness.Cache()
		if err != nil {
			return nil, err
		}
		bin := filepath.Join(cache, "klite-"+kliteVersion)
		if program = filepath.Join(bin, "klite"); !there(program) {
			if err := harness.Tool(dir, "env", "GOBIN="+bin, "GOFLAGS=-mod=mod", "go", "install", klitePath+"@"+kliteVersion); err != nil {
				return nil, fmt.Errorf("%w; -klite names a program", err)
			}
		}
	}
	port, err := harness.FreePort()
	if err != nil {
		return nil, err
	}
	r := &running{topics: map[string]bool{}, seeds: []string{harness.Loopback(port)}}
	p := &harness.Process{Name: "klite", Path: program, Log: filepath.Join(dir, "klite.log"), Args: []string{"-listen", r.seeds[0], "-data-dir", filepath.Join(dir, "klite")}}
	if err := p.Start(); err != nil {
		return nil, err
	}
	r.processes = append(r.processes, p)
	r.stop = func() { r.kill() }
	return r, r.kafkaTopics(1, nil)
}

// kill ends what start started; its data is of no use to anybody.
func (r *running) kill() {
	for _, p := range r.processes {
		if p.Running() {
			p.Kill9()
		}
	}
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
