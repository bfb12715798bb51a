// Package secured attacks clusters whose clients have to log in, and has their rights change while
// they wait. Each attack is also made on a cluster that is open, which must notice it: so that a
// test that finds nothing could have found something.
//
// You are here: the outside. Each test owns its cluster; nothing is shared.
package secured

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/trimaran-io/trimaran/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	// patience is how long a cluster may take to serve again after a fault.
	patience = 2 * time.Minute
	password = "pä§§=,wörd"
)

// locked are the flags of a node whose clients have to log in and whose rights are judged.
var locked = []string{"--sasl-mechanisms", "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN,OAUTHBEARER", "--authorize", "--super-users", "User:admin"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// trimaran runs the program's command line.
func trimaran(in string, args ...string) (string, error) {
	program, err := harness.Program("trimaran")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin, cmd.Env = strings.NewReader(in), append(os.Environ(), "TRIMARAN_PASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// socket is how the command line comes to a node as the super user.
func socket(n *harness.Node) string { return "unix:" + n.Data }

// operator runs a command as the super user of the first node. It must succeed.
func operator(t testing.TB, c *harness.Cluster, args ...string) string {
	t.Helper()
	out, err := trimaran(password+"\n", append(args, "--brokers", socket(c.Node(1)))...)
	if err != nil {
		t.Fatalf("trimaran %v: %v\n%s", args, err, out)
	}
	return out
}

// user makes a user that has these rights, each the arguments of trimaran acl add.
func user(t testing.TB, c *harness.Cluster, name string, rights ...string) {
	t.Helper()
	operator(t, c, "user", "create", name, "--password-stdin")
	for _, r := range rights {
		operator(t, c, append([]string{"acl", "add", "--principal", "User:" + name}, strings.Fields(r)...)...)
	}
}

// client is a franz-go client that tries nothing twice. mechanism may be nil.
func client(t testing.TB, addr string, mechanism sasl.Mechanism, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts := append([]kgo.Opt{
		kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.RetryTimeout(3 * time.Second), kgo.DisableIdempotentWrite(),
		kgo.RecordRetries(0), kgo.RecordDeliveryTimeout(3 * time.Second), kgo.UnknownTopicRetries(-1),
	}, more...)
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	cl, err := kgo.NewClient(opts...)
	must(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// patient has a client try again as long as its caller waits: for what is no question of the test.
func patient() []kgo.Opt {
	return []kgo.Opt{kgo.RequestRetries(1000), kgo.RetryTimeout(patience), kgo.RecordRetries(1000), kgo.RecordDeliveryTimeout(patience)}
}

func as(name string) sasl.Mechanism { return plain.Auth{User: name, Pass: password}.AsMechanism() }

func dialSocket(n *harness.Node) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(n.Data, "trimaran.sock"))
	}
}

// atSocket has a client come by a node's Unix socket.
func atSocket(t testing.TB, n *harness.Node) *kadm.Client {
	return kadm.NewClient(client(t, "local:1", nil, append(patient(), kgo.Dialer(dialSocket(n)))...))
}
