package main

import (
	"context"

	"github.com/trimaran-io/trimaran/test/harness"
)

// row is a client at one mode: what it is called, how it is made ready and what
// it can do.
type row struct {
	name    string
	version string // pinned
	mode    string // default or 0.8
	quick   bool   // part of -quick
	alone   bool   // no other row runs beside it: what it disturbs has to be under way still
	named   bool   // only with -only: its own timeouts are too short for a busy machine

	codecs     []string
	noAdmin    bool // cannot create topics
	noGroup    bool // has no consumer groups
	noHeaders  bool
	groupReads bool // cannot read without a group
	idempotent bool // its producer is, at the settings used
	noShim     bool // speaks over WebSocket, which is behind the shim and not before it

	// transactions: it has a transactional producer, which is a row of its own and has the pass
	// with kills, as few of those with run have.
	transactions bool

	prepare     func(p *preparer, ctx context.Context, r row) (program, error)
	run         func(ctx context.Context, a *attempt) error // instead of the scenario
	secured     bool                                        // run needs clients that log in
	needsGroups bool                                        // run needs consumer groups
}

// program is how a client is run.
type program struct {
	command []string
	env     []string
	folder  string
}

// prepared is a row that can be run, or the reason why not.
type prepared struct {
	row
	program
	err error
}

var (
	allCodecs  = []string{"none", "gzip", "snappy", "lz4", "zstd"}
	noZstd     = []string{"none", "gzip", "snappy", "lz4"}
	codecsOf08 = []string{"none", "gzip", "snappy"}
)

// catalog is every client, at the versions that are pinned here and in the lock
// files under clients/.
func catalog() []row {
	java := func(version string, codecs []string, idempotent, quick bool) row {
		return row{name: "java " + version, version: version, mode: "default", quick: quick,
			codecs: codecs, idempotent: idempotent, transactions: true, prepare: (*preparer).java}
	}
	rows := []row{
		java("0.11.0.3", noZstd, false, false),
		java("2.8.2", allCodecs, false, false),
		java("3.9.2", allCodecs, true, false),
		java("4.4.0", allCodecs, true, true),
		{name: "kcat", version: "1.7.1", mode: "default", quick: true, codecs: allCodecs, noAdmin: true, prepare: (*preparer).kcat},
		{name: "kcat", version: "1.7.1", mode: "0.8", codecs: codecsOf08, noAdmin: true, noGroup: true, noHeaders: true, prepare: (*preparer).kcat},
		{name: "confluent-kafka", version: "2.16.1", mode: "default", transactions: true, codecs: allCodecs, prepare: python("python", "confluent.py")},
		{name: "kafka-python", version: "3.0.12", mode: "default", transactions: true, quick: true, codecs: allCodecs, idempotent: true, prepare: python("python", "kafka_python.py")},
		{name: "kafka-python old", version: "2.0.6", mode: "default", codecs: noZstd, prepare: python("pythonold", "kafka_python.py")},
		{name: "kafka-python old", version: "2.0.6", mode: "0.8", quick: true, codecs: codecsOf08, noAdmin: true, noGroup: true, noHeaders: true, prepare: python("pythonold", "kafka_python.py")},
		{name: "aiokafka", version: "0.14.0", mode: "default", transactions: true, codecs: allCodecs, prepare: python("python", "aio_kafka.py")},
		{name: "franz-go", version: "1.22.2", mode: "default", transactions: true, quick: true, codecs: allCodecs, idempotent: true, prepare: goProgram("franzgo")},
		{name: "franz-go", version: "1.22.2", mode: "0.8", quick: true, codecs: codecsOf08, noAdmin: true, noGroup: true, noHeaders: true, prepare: goProgram("franzgo")},
		{name: "sarama", version: "1.61.1", mode: "default", transactions: true, quick: true, codecs: allCodecs, prepare: goProgram("sarama")},
		{name: "sarama", version: "1.61.1", mode: "0.8", codecs: codecsOf08, noAdmin: true, noGroup: true, noHeaders: true, prepare: goProgram("sarama")},
		{name: "kafka-go", version: "0.4.51", mode: "default", codecs: allCodecs, prepare: goProgram("kafkago")},
		{name: "kafkajs", version: "2.2.4", mode: "default", transactions: true, codecs: allCodecs, groupReads: true, prepare: (*preparer).kafkajs},
		{name: "confluent-javascript", version: "1.10.1", mode: "default", transactions: true, codecs: allCodecs, groupReads: true, prepare: (*preparer).confluentjs},
		{name: "rust rdkafka", version: "0.39.0", mode: "default", transactions: true, codecs: allCodecs, prepare: (*preparer).rust},
		adminRow("3.9.2"),
		adminRow("4.4.0"),
	}
	for _, runtime := range []string{"node", "deno", "bun"} {
		rows = append(rows, row{name: "trimaran-js " + runtime, version: "0.1.0", mode: "default", quick: runtime == "node",
			codecs: allCodecs, idempotent: true, noShim: true, prepare: trimaranjs(runtime)})
	}
	rows = append(rows, transactional(rows)...)
	rows = append(rows, kadmRow(), row{name: "franz-go tests", version: "1.22.2", mode: "default", transactions: true,
		named: true, needsGroups: true, prepare: (*preparer).franzTests, run: franzChain})
	return append(rows, toolRows()...)
}

// adminRow is Java's AdminClient with everything but groups.
func adminRow(version string) row {
	return row{name: "java admin " + version, version: version, mode: "default", quick: version[0] == '4', prepare: (*preparer).java,
		run: func(ctx context.Context, a *attempt) error {
			args := append([]string{}, a.command[1:len(a.command)-1]...)
			a.command = append([]string{a.command[0]}, args...)
			_, err := a.tool(ctx, "", "Admin", a.bootstrap(a.way, nil), harness.Topic("admin"))
			return err
		}}
}
