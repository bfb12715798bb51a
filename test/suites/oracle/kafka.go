package oracle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// brokerConfigs are those of the Kafka that answers: one process, broker and controller,
// on loopback.
const brokerConfigs = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
log.dirs=%[3]s/log
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
`

// securedConfigs come behind them: a listener where clients log in, and the authorizer, to whom who
// comes by the other listeners is a super user.
const securedConfigs = `listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d,CLIENT://127.0.0.1:%[3]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d,CLIENT://127.0.0.1:%[3]d
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENT:SASL_PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.client.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.client.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
`

// clusterID is any: the format wants 16 bytes in base 64.
const clusterID = "MkU3OEVBNTcwNTJENDM2Qg"

// NodeOptions are those of the Trimaran that answers: one node, as one broker.
func NodeOptions() harness.Options {
	return harness.Options{Nodes: 1, NoShim: true, NodeArgs: nodeFlags}
}

// SecuredOptions are those of the one that is as a Kafka with securedConfigs.
func SecuredOptions() harness.Options {
	o := NodeOptions()
	o.BySocket = true
	o.NodeArgs = append(slices.Clip(nodeFlags), "--sasl-mechanisms", "SCRAM-SHA-256,SCRAM-SHA-512", "--authorize")
	return o
}

// Of says where a node of ours is reached.
func Of(n *harness.Node) Broker { return Broker{Addr: n.Driver(), SASL: n.Addr()} }

// nodeFlags are as brokerConfigs, where a node's defaults are not a broker's.
var nodeFlags []string

// Kafka is a broker that runs until Close.
type Kafka struct {
	Broker

	process harness.Process
	dir     string
}

// StartKafka runs a Kafka of that version in a temporary folder and returns when it serves.
func StartKafka(version string, secured bool) (*Kafka, error) {
	lib, err := harness.KafkaJars(version)
	if err != nil {
		return nil, err
	}
	port, err := harness.FreePort()
	if err != nil {
		return nil, err
	}
	controller, err := harness.FreePort()
	if err != nil {
		return nil, err
	}
	sasl, err := harness.FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "oracle-")
	if err != nil {
		return nil, err
	}
	k := &Kafka{Broker: Broker{Addr: harness.Loopback(port), SASL: harness.Loopback(sasl)}, dir: dir}
	properties := filepath.Join(dir, "server.properties")
	configs := fmt.Sprintf(brokerConfigs, port, controller, dir)
	if secured {
		configs += fmt.Sprintf(securedConfigs, port, controller, sasl) // the last of a name counts
	}
	if err := os.WriteFile(properties, []byte(configs), 0o666); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	class := filepath.Join(lib, "*")
	if err := harness.Tool(dir, "java", "-cp", class, "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", properties); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	k.process = harness.Process{Name: "kafka", Path: "java", Args: []string{"-Xmx512m", "-cp", class, "kafka.Kafka", properties}, Log: filepath.Join(dir, "kafka.log")}
	if err := k.process.Start(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	if err := harness.WaitTCP(k.Addr, 3*time.Minute); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, k.process.Tail(10)), k.Close())
	}
	return k, nil
}

// Close ends the broker, which was started here, and deletes its files.
func (k *Kafka) Close() error {
	var err error
	if k.process.Running() {
		err = k.process.Kill9()
	}
	return errors.Join(err, os.RemoveAll(k.dir))
}
