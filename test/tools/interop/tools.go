package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// toolsVersion is Kafka's own tools, Streams and Connect, at the newest version
// whose kafka-tools are in Maven's repository.
const toolsVersion = "4.3.1"

// toolRows are Kafka's command-line tools, each by the name of its script.
func toolRows() []row {
	tool := func(name string, quick, groups bool, run func(context.Context, *attempt) error) row {
		return row{name: name, version: toolsVersion, mode: "default", quick: quick, needsGroups: groups, prepare: (*preparer).tools, run: run}
	}
	return []row{
		tool("kafka-topics", true, false, topicsTool),
		tool("kafka-configs", false, false, configsTool),
		tool("kafka-console-clients", true, false, consoleTools),
		tool("kafka-producer-perf-test", false, false, perfTool),
		tool("kafka-verifiable-producer", false, false, verifiableTool),
		tool("kafka-other-tools", false, false, otherTools),
		tool("kafka-replica-tools", false, false, replicaTools),
		tool("kafka-consumer-groups", true, true, groupsTool),
		tool("streams word count", false, true, wordCount("at_least_once")),
		killed(tool("streams exactly once", false, true, wordCount("exactly_once_v2"))),
		killed(tool("streams compacted", false, true, onCompacting(wordCountCompacted))),
		killed(tool("kafka-transactions", false, false, transactionsTool)),
		tool("kafka-transactions hanging", false, false, hangingTool),
		tool("connect file", false, true, connectFile),
		alone(killed(tool("connect exactly once", false, true, connectExactlyOnce))),
		killed(tool("connect compacted", false, true, onCompacting(connectCompacted))),
		compactionTesterRow(),
	}
}

// killed gives a row that has the pass with kills, too.
func killed(r row) row {
	r.transactions = true
	return r
}

// alone gives a row that runs beside no other.
func alone(r row) row {
	r.alone = true
	return r
}

// tools gathers the jars and compiles the word count against them.
func (p *preparer) tools(ctx context.Context, r row) (program, error) {
	if err := need("java", "javac", "mvn"); err != nil {
		return program{}, err
	}
	dir, err := p.once("kafka-tools-"+r.version, []string{"tools/pom.xml", "tools/WordCount.java"}, []string{r.version}, func(dir string) error {
		if err := maven(ctx, dir, "-Dkafka.version="+r.version); err != nil {
			return err
		}
		return command(ctx, dir, nil, "javac", "-nowarn", "-cp", "lib/*", "-d", "classes", "WordCount.java")
	})
	return program{command: []string{"java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", filepath.Join(dir, "classes") + ":" + filepath.Join(dir, "lib", "*")}}, err
}

// tool runs one class to its end and gives what it wrote to stdout.
func (a *attempt) tool(ctx context.Context, stdin string, class string, args ...string) (string, error) {
	a.trace("%s %s", class, strings.Join(args, " "))
	a.mu.Lock()
	a.runs++
	name := fmt.Sprintf("%02d-%s.log", a.runs, class[strings.LastIndexByte(class, '.')+1:])
	a.mu.Unlock()
	if err := os.MkdirAll(a.dir, 0o777); err != nil {
		return "", err
	}
	log, err := os.Create(filepath.Join(a.dir, name))
	if err != nil {
		return "", err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(ctx, a.step)
	defer cancel()
	cmd := a.java(ctx, append([]string{class}, args...)...)
	cmd.Env = append(os.Environ(), a.env...)
	fmt.Fprintf(log, "--- %s %s\n", class, strings.Join(args, " "))
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, log), log
	err = cmd.Run()
	short := class[strings.LastIndexByte(class, '.')+1:] + " " + strings.Join(args, " ")
	switch {
	case ctx.Err() != nil:
		return out.String(), fmt.Errorf("%s: %w", short, errDeadline)
	case err != nil:
		return out.String(), fmt.Errorf("%s: %w: %s", short, err, lastLines([]byte(tailOf(log.Name(), 3)), 1))
	}
	return out.String(), nil
}

// script is a run of tools that stops at the first that fails.
type script struct {
	ctx context.Context
	*attempt
	err    error
	config string // what --command-config names
	stdin  string // for the tool that must fail
}

// common is what every tool is told.
func (s *script) common() []string {
	out := []string{"--bootstrap-server", s.bootstrap(s.way, nil)}
	if s.config != "" {
		out = append(out, "--command-config", s.config)
	}
	return out
}

// run runs a tool with --bootstrap-server and wants each of the texts in its output.
func (s *script) run(class, args string, want ...string) string {
	return s.feed("", class, args, want...)
}

func (s *script) feed(stdin, class, args string, want ...string) string {
	if s.err != nil {
		return ""
	}
	all := append(s.common(), strings.Fields(args)...)
	out, err := s.tool(s.ctx, stdin, class, all...)
	if err != nil {
		s.err = err
		return out
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			s.err = fmt.Errorf("%s %s does not say %q: %.300q", class, args, w, out)
		}
	}
	return out
}

// refuse runs a tool that must fail and say why.
func (s *script) refuse(class, args, why string) {
	if s.err != nil {
		return
	}
	all := append(s.common(), strings.Fields(args)...)
	out, err := s.tool(s.ctx, s.stdin, class, all...)
	if logs, _ := filepath.Glob(filepath.Join(s.dir, "*.log")); len(logs) > 0 {
		out += tailOf(logs[len(logs)-1], 40) // what it says to stderr, where it may end well
	}
	switch {
	case errors.Is(err, errDeadline):
		s.err = err
	case strings.Contains(out, why):
	case err == nil:
		s.err = fmt.Errorf("%s %s was not refused: %.300q", class, args, out)
	default:
		s.err = fmt.Errorf("%s %s is refused without %q: %w", class, args, why, err)
	}
}

// until runs a tool again until its output has the text: nodes follow the catalog
// in their own time.
func (s *script) until(class, args, want string) {
	for end := time.Now().Add(s.step); s.err == nil; {
		if strings.Contains(s.run(class, args), want) {
			return
		}
		if time.Now().After(end) {
			s.err = fmt.Errorf("%s %s never says %q", class, args, want)
		}
	}
}

const (
	topicCommand  = "org.apache.kafka.tools.TopicCommand"
	configCommand = "kafka.admin.ConfigCommand"
	groupCommand  = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
	producerTool  = "org.apache.kafka.tools.ConsoleProducer"
	consumerTool  = "org.apache.kafka.tools.consumer.ConsoleConsumer"
	offsetsTool   = "org.apache.kafka.tools.GetOffsetShell"
)

func topicsTool(ctx context.Context, a *attempt) error {
	s, t := &script{ctx: ctx, attempt: a}, harness.Topic("tool-topics")
	s.run(topicCommand, "--create --topic "+t+" --partitions 3 --replication-factor 3 --config retention.ms=100000", "Created topic")
	s.until(topicCommand, "--list", t)
	s.until(topicCommand, "--describe --topic "+t, "PartitionCount: 3")
	s.run(topicCommand, "--describe --topic "+t, "retention.ms=100000", "Partition: 2\tLeader: 1")
	s.refuse(topicCommand, "--create --topic "+t, "already exists")
	s.run(topicCommand, "--create --if-not-exists --topic "+t)
	s.refuse(topicCommand, "--create --topic "+t+"-4 --replication-factor 4", "replication factor")
	s.run(topicCommand, "--alter --topic "+t+" --partitions 5")
	s.until(topicCommand, "--describe --topic "+t, "PartitionCount: 5")
	if out := s.run(topicCommand, "--describe --unavailable-partitions"); s.err == nil && strings.Contains(out, t) {
		s.err = fmt.Errorf("unavailable partitions: %.200q", out)
	}
	s.run(topicCommand, "--delete --topic "+t)
	s.refuse(topicCommand, "--delete --topic "+t, "does not exist")
	return s.err
}

func configsTool(ctx context.Context, a *attempt) error {
	s, t := &script{ctx: ctx, attempt: a}, harness.Topic("tool-configs")
	if err := a.makeTopic(ctx, t, 1); err != nil {
		return err
	}
	entity := "--entity-type topics --entity-name " + t
	s.run(configCommand, "--alter "+entity+" --add-config retention.ms=5000,cleanup.policy=compact", "Completed updating")
	s.until(configCommand, "--describe "+entity, "retention.ms=5000")
	s.run(configCommand, "--describe --all "+entity, "cleanup.policy=compact", "segment.bytes=", "max.message.bytes=")
	s.run(configCommand, "--alter "+entity+" --delete-config retention.ms", "Completed updating")
	s.until(configCommand, "--describe --all "+entity, "retention.ms=604800000")
	s.refuse(configCommand, "--alter "+entity+" --add-config no.such=1", "no.such")
	s.run(configCommand, "--describe --all --entity-type brokers --entity-name 1", "message.max.bytes")
	s.run(configCommand, "--describe --entity-type brokers --entity-default")
	for _, kind := range []string{"users", "clients", "ips", "client-metrics", "groups", "topics", "brokers", "broker-loggers --entity-name 1"} {
		s.run(configCommand, "--describe --entity-type "+kind)
	}
	s.run(configCommand, "--describe --user somebody")
	s.refuse(configCommand, "--alter --user somebody --add-config producer_byte_rate=1024", "ALTER_CLIENT_QUOTAS")
	s.refuse(configCommand, "--alter --entity-type brokers --entity-name 1 --add-config log.retention.ms=1", "configured where they run")
	s.run(configCommand, "--alter --entity-type brokers --entity-name 1 --add-config log.cleaner.backoff.ms=16000", "Completed updating")
	s.until(configCommand, "--describe --entity-type brokers --entity-name 1", "log.cleaner.backoff.ms=16000")
	s.run(configCommand, "--alter --entity-type brokers --entity-name 1 --delete-config log.cleaner.backoff.ms", "Completed updating")
	s.run(configCommand, "--alter "+entity+" --delete-config retention.bytes")
	return s.err
}

func consoleTools(ctx context.Context, a *attempt) error {
	s, t := &script{ctx: ctx, attempt: a}, harness.Topic("tool-console")
	if err := a.makeTopic(ctx, t, 1); err != nil {
		return err
	}
	var in, want strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&in, "k%d:v%d\n", i, i)
		fmt.Fprintf(&want, "k%d\tv%d\n", i, i)
	}
	s.feed(in.String(), producerTool, "--topic "+t+" --reader-property parse.key=true --reader-property key.separator=: --compression-codec gzip")
	out := s.run(consumerTool, "--topic "+t+" --partition 0 --offset earliest --max-messages 2000 --formatter-property print.key=true")
	if s.err == nil && out != want.String() {
		s.err = fmt.Errorf("the console consumer gives %d bytes, want %d: %.100q", len(out), want.Len(), out)
	}
	if a.groups {
		out := s.run(consumerTool, "--topic "+t+" --group "+t+" --from-beginning --max-messages 2000 --formatter-property print.key=true")
		if s.err == nil && out != want.String() {
			s.err = fmt.Errorf("the console consumer in a group gives %d bytes, want %d", len(out), want.Len())
		}
	}
	return s.err
}

func perfTool(ctx context.Context, a *attempt) error {
	s, t := &script{ctx: ctx, attempt: a}, harness.Topic("tool-perf")
	if err := a.makeTopic(ctx, t, 3); err != nil {
		return err
	}
	s.run("org.apache.kafka.tools.ProducerPerformance", "--topic "+t+" --num-records 20000 --record-size 200 --throughput -1", "20000 records sent")
	if total := s.total(t); s.err == nil && total != 20_000 {
		s.err = fmt.Errorf("the topic has %d records, want 20000", total)
	}
	return s.err
}

// total adds up what kafka-get-offsets says of a topic.
func (s *script) total(topic string) (total int) {
	for _, line := range strings.Fields(s.run(offsetsTool, "--topic "+topic)) {
		var n int
		if _, err := fmt.Sscanf(line[strings.LastIndexByte(line, ':')+1:], "%d", &n); err == nil {
			total += n
		}
	}
	return total
}

func verifiableTool(ctx context.Context, a *attempt) error {
	s, t := &script{ctx: ctx, attempt: a}, harness.Topic("tool-verifiable")
	if err := a.makeTopic(ctx, t, 3); err != nil {
		return err
	}
	s.run("org.apache.kafka.tools.VerifiableProducer", "--topic "+t+" --max-messages 3000", `"sent":3000,"acked":3000`)
	if total := s.total(t); s.err == nil && total != 3000 {
		s.err = fmt.Errorf("the topic has %d records, want 3000", total)
	}
	if a.groups {
		out := s.run("org.apache.kafka.tools.VerifiableConsumer", "--topic "+t+" --group-id "+t+" --max-messages 3000")
		if s.err == nil && (!strings.Contains(out, `"success":true`) || !strings.Contains(out, "shutdown_complete")) {
			s.err = fmt.Errorf("the verifiable consumer does not commit: %.300q", out)
		}
	}
	return s.err
}

// otherTools are kafka-get-offsets, kafka-delete-records, kafka-log-dirs,
// kafka-cluster, kafka-broker-api-versions, kafka-features, kafka-reassign-partitions.
func otherTools(ctx context.Context, a *attempt) error {
	s, t := &script{ctx: ctx, attempt: a}, harness.Topic("tool-others")
	if err := a.makeTopic(ctx, t, 1); err != nil {
		return err
	}
	s.feed(strings.Repeat("line\n", 100), producerTool, "--topic "+t)
	s.run(offsetsTool, "--topic "+t, t+":0:100")
	s.run(offsetsTool, "--topic "+t+" --time earliest", t+":0:0")
	s.run(offsetsTool, "--topic "+t+" --time max-timestamp", t+":0:")
	file := filepath.Join(a.dir, "delete.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"partitions":[{"topic":%q,"partition":0,"offset":40}],"version":1}`, t), 0o666); err != nil && s.err == nil {
		return err
	}
	s.run("org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file "+file, "low_watermark: 40")
	s.run(offsetsTool, "--topic "+t+" --time earliest", t+":0:40")
	s.run("org.apache.kafka.tools.LogDirsCommand", "--describe --topic-list "+t, t+"-0", `"error":null`)
	s.run("org.apache.kafka.tools.BrokerApiVersionsCommand", "", "Produce(0)", "Fetch(1)")
	s.run("org.apache.kafka.tools.FeatureCommand", "describe")
	s.run("org.apache.kafka.tools.reassign.ReassignPartitionsCommand", "--list", "No partition reassignments found")
	if s.err == nil {
		_, s.err = a.tool(ctx, "", "org.apache.kafka.tools.ClusterTool", "cluster-id", "--bootstrap-server", a.bootstrap(a.way, nil))
	}
	return s.err
}

// replicaTools are those that look at replicas, elections and the quorum:
// kafka-reassign-partitions, kafka-leader-election, kafka-metadata-quorum, kafka-features,
// kafka-log-dirs.
func replicaTools(ctx context.Context, a *attempt) error {
	s, t := &script{ctx: ctx, attempt: a}, harness.Topic("tool-replicas")
	if err := a.makeTopic(ctx, t, 1); err != nil {
		return err
	}
	const reassign = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
	file := filepath.Join(a.dir, "move.json")
	if err := os.MkdirAll(a.dir, 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"partitions":[{"topic":%q,"partition":0,"replicas":[1]}],"version":1}`, t), 0o666); err != nil {
		return err
	}
	s.run(reassign, "--execute --reassignment-json-file "+file, "Successfully started partition reassignment")
	s.run(reassign, "--verify --reassignment-json-file "+file, "Clearing broker-level throttles", "Clearing topic-level throttles")
	s.run(topicCommand, "--create --topic "+t+"-placed --replica-assignment 1,1,1", "Created topic")
	s.until(topicCommand, "--describe --topic "+t+"-placed", "PartitionCount: 3")
	s.refuse(topicCommand, "--create --topic "+t+"-elsewhere --replica-assignment 7", "placed by the cluster")
	s.run("org.apache.kafka.tools.LeaderElectionCommand", "--election-type preferred --topic "+t+" --partition 0", "Valid replica already elected")
	s.run("org.apache.kafka.tools.LeaderElectionCommand", "--election-type preferred --all-topic-partitions")
	s.run("org.apache.kafka.tools.MetadataQuorumCommand", "describe --status", "LeaderEpoch:", "CurrentVoters:")
	s.run("org.apache.kafka.tools.MetadataQuorumCommand", "describe --replication", "Leader")
	s.refuse("org.apache.kafka.tools.FeatureCommand", "upgrade --feature metadata.version=25", "rises by itself")
	return s.err
}

func groupsTool(ctx context.Context, a *attempt) error {
	s, t := &script{ctx: ctx, attempt: a}, harness.Topic("tool-groups")
	if err := a.makeTopic(ctx, t, 1); err != nil {
		return err
	}
	g := t + "-group"
	s.feed(strings.Repeat("line\n", 100), producerTool, "--topic "+t)
	s.run(consumerTool, "--topic "+t+" --group "+g+" --from-beginning --max-messages 100", "line")
	s.run(groupCommand, "--list", g)
	s.run(groupCommand, "--list --state", "Empty")
	s.run(groupCommand, "--describe --group "+g, t)
	s.run(groupCommand, "--describe --state --group "+g, "Empty")
	s.run(groupCommand, "--describe --members --group "+g)
	s.run(groupCommand, "--describe --all-groups --offsets", g)
	s.run(groupCommand, "--reset-offsets --group "+g+" --topic "+t+" --to-offset 30 --execute", "30")
	out := s.run(groupCommand, "--describe --group "+g)
	if f := fieldsOf(out, t); s.err == nil && (len(f) < 6 || f[3] != "30" || f[4] != "100" || f[5] != "70") {
		s.err = fmt.Errorf("after the reset the group is described as %q", f)
	}
	s.run(consumerTool, "--topic "+t+" --group "+g+" --max-messages 70", "line")
	s.run(groupCommand, "--reset-offsets --group "+g+" --all-topics --to-earliest --dry-run", "0")
	// A group that never had a member gets its offsets by a reset, and is gone with them.
	s.run(groupCommand, "--reset-offsets --group "+g+"-other --topic "+t+" --to-offset 10 --execute", "10")
	s.run(groupCommand, "--describe --offsets --group "+g+"-other", t)
	s.run(groupCommand, "--delete-offsets --group "+g+"-other --topic "+t, t)
	s.run(groupCommand, "--delete --group "+g, "successful")
	if out := s.run(groupCommand, "--list"); s.err == nil && strings.Contains(out, g) {
		s.err = errors.New("the deleted group is still listed")
	}
	s.refuse(groupCommand, "--delete --group "+g, "could not be deleted")
	return s.err
}

// fieldsOf gives the words of the first line that has the text.
func fieldsOf(out, text string) []string {
	for _, l := range strings.Split(out, "\n") {
		if f := strings.Fields(l); len(f) > 1 && f[1] == text {
			return f
		}
	}
	return nil
}
