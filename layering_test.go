package trimaran_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestLayering holds the direction of dependency: lower never imports higher, and
// gateway and cluster do not know each other. Only code that ships is looked at;
// tests may reach across.
func TestLayering(t *testing.T) {
	for _, file := range shippedFiles(t) {
		rule, ok := layerOf(file.folder)
		if !ok {
			t.Errorf("%s: folder %q has no place in the layering: decide what it may import, and say so in layers", file.name, file.folder)
			continue
		}
		for _, imported := range file.imports {
			if why := rule.forbids(file.folder, imported); why != "" {
				t.Errorf("%s imports %s: %s", file.name, imported, why)
			}
		}
	}
}

// TestStateMachinesArePure holds what determinism in fsm and its folders rests on, as far
// as it can be seen from outside: no source of difference between two replicas is
// imported, and nothing runs beside the machine.
func TestStateMachinesArePure(t *testing.T) {
	allowed := []string{
		"bytes", "cmp", "encoding/binary", "encoding/hex", "encoding/json", "errors", "fmt", "hash/crc32", "io",
		"iter", "maps", "math", "math/bits", "net/netip", "slices", "sort", "strconv", "strings", "unicode", "unicode/utf8",
	}
	for _, file := range shippedFiles(t) {
		if !inside(file.folder, "fsm") && !slices.Contains([]string{"cluster/placement", "outcome", "security/acl"}, file.folder) {
			continue
		}
		for _, imported := range file.imports {
			if !strings.HasPrefix(imported, module) && !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s: replicas must reach the same state, byte for byte, so a clock, chance, the disk, the network and the log are outside; "+
					"what they give comes in as an argument or in the command. If this package is as pure as %v, add it to the list", file.name, imported, allowed[:4])
			}
		}
		ast.Inspect(file.parse(t), func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType:
				t.Errorf("%s starts goroutines or waits for them: a state machine is a value, who runs it is its caller's affair", file.name)
				return false
			}
			return true
		})
	}
}

// layer says what the code of a folder, and of the folders in it that have no
// rule of their own, may import.
type layer struct {
	folder string
	// ours are folders of this module. A folder may always import what lies in it.
	ours []string
	// others are prefixes of modules; nil: any.
	others []string
	why    string
}

const hashicorp = "github.com/hashicorp/"

// layers goes from the top down.
var layers = []layer{
	{"cmd/internal/collector", nil, []string{"golang.org/x/"},
		"how often garbage is collected depends on the process and on nothing that it does"},
	{"cmd/internal/logs", nil, nil,
		"who reads a log is the same to whoever writes it"},
	{"cmd/internal/descriptors", nil, nil,
		"how many files a process may open is divided before anything is opened"},
	{"cmd/internal/drill", []string{"console"}, []string{},
		"who runs nodes can end them; it knows their processes, and no node knows of it"},
	{"cmd/internal/monitor", nil, []string{"golang.org/x/"},
		"how Go's own threads behave is settled before anything is started"},
	{"cmd/internal/terminal", nil, nil,
		"what is fit for a terminal does not depend on where it comes from"},
	{"cmd/trimaran", []string{"cmd/internal/collector", "cmd/internal/descriptors", "cmd/internal/drill", "cmd/internal/logs", "cmd/internal/monitor", "cmd/internal/terminal", "gateway", "gateway/shim", "cluster", "cluster/lostquorum", "cluster/membership", "cluster/peertls", "cluster/tier", "security", "security/certs", "coordinator", "transaction", "admin", "backup", "fsm", "outcome", "kafkaproto", "security/acl", "security/scram", "gateway/audit", "gateway/listen", "gateway/login", "security/jwt", "security/token"}, nil,
		"the node's command introduces gateway and cluster to each other; what lies below them is their affair"},
	{"cmd/trimaran-shim", []string{"cmd/internal/collector", "cmd/internal/descriptors", "cmd/internal/logs", "cmd/internal/monitor", "gateway/shim", "security/certs"}, nil,
		"the shim runs beside clients and must not carry a node"},
	{"gateway", []string{"coordinator", "transaction", "fsm", "kafkaproto", "gateway/listen", "gateway/order", "gateway/session", "admin", "outcome", "security", "security/acl", "security/scram", "security/token", "gateway/audit", "gateway/login"}, []string{"github.com/prometheus/", "github.com/twmb/franz-go/", "golang.org/x/"},
		"the gateway knows the cluster only by the interface it declares, so that either can be understood, tested and replaced alone"},
	{"gateway/audit", nil, []string{"golang.org/x/"},
		"who was refused what is written down the same way, whoever refuses"},
	{"gateway/login", []string{"gateway/audit", "security", "security/jwt", "security/scram", "security/token"}, []string{"github.com/go-jose/go-jose/v4", "github.com/prometheus/", "golang.org/x/"},
		"who a client is follows from what it shows and what the catalog keeps; requests, sockets and the cluster are its callers' affair"},
	{"gateway/internal/frames", nil, nil,
		"clients compile it into their programs, with package shim"},
	{"gateway/listen", []string{"console", "gateway/internal/frames", "gateway/login", "gateway/session", "gateway/shim", "kafkaproto", "security"}, []string{"github.com/gorilla/websocket", "github.com/prometheus/", "golang.org/x/"},
		"what listens knows connections, of Kafka no more than a frame's size, and of the cluster only whether it serves"},
	{"console", nil, []string{},
		"the page is a Kafka client like any other: all that a node does for it is to hand out its files"},
	{"gateway/session", []string{"kafkaproto"}, []string{"golang.org/x/"},
		"a session knows frames and their order; what they say is its handler's affair, where they come from its framer's"},
	{"gateway/order", []string{"fsm", "kafkaproto", "outcome"}, []string{},
		"in which order a connection's requests are worked on does not depend on what listens, nor on the APIs' formats"},
	{"gateway/shim", []string{"gateway/internal/frames"}, []string{"github.com/gorilla/websocket", "golang.org/x/"},
		"clients compile this package into their programs: it brings nothing along"},
	{"cluster", []string{"cluster/backofflog", "cluster/calls", "cluster/catalog", "cluster/diskroom", "cluster/formation", "cluster/identity", "cluster/leading", "cluster/liveness", "cluster/lostquorum", "cluster/route", "cluster/raftgroup", "cluster/replica", "cluster/link", "cluster/peertls", "cluster/raftlink", "cluster/election", "cluster/membership", "cluster/placement", "cluster/raftlog", "cluster/raftlog/bolt", "cluster/raftlog/vfs", "cluster/status", "cluster/tier", "coordinator", "transaction", "fsm", "kafkaproto", "admin", "fsm/groups", "fsm/transactions", "outcome", "security/acl"}, []string{hashicorp, "github.com/prometheus/", "github.com/twmb/franz-go/pkg/kmsg", "golang.org/x/"},
		"the cluster does not know that clients and sessions exist; requests of consumer groups, in kmsg's structures, are all it carries for them, unread"},
	{"cluster/backofflog", nil, []string{},
		"what repeats is said less often, whoever says it"},
	{"cluster/replica", []string{"cluster/calls", "cluster/compaction", "cluster/raftgroup", "cluster/raftlog", "cluster/raftlog/vfs", "cluster/tier", "coordinator", "transaction", "fsm", "kafkaproto", "outcome", "admin", "fsm/groups", "fsm/transactions"}, []string{hashicorp, "github.com/twmb/franz-go/pkg/kmsg", "golang.org/x/"},
		"a replica knows its log and its state machine; who should hold it, who is there and how others are reached it asks of its host"},
	{"cluster/compaction", []string{"fsm", "kafkaproto"}, []string{},
		"what compaction leaves follows from records and the decision alone; files, clocks and other nodes are its callers' affair"},
	{"cluster/tier", []string{"cluster/raftlog/vfs", "fsm", "kafkaproto"}, []string{"golang.org/x/"},
		"what lies in a store is batches and their sums: who leads, what is named and which kind of store there is are its callers' affair"},
	{"cluster/raftgroup", []string{"cluster/raftlog", "fsm", "outcome"}, []string{hashicorp},
		"a member of a Raft group does not know what its entries mean, who should be in it, or how others are reached"},
	{"cluster/route", []string{"cluster/calls", "cluster/link", "coordinator", "transaction", "fsm", "kafkaproto", "outcome", "admin", "fsm/groups", "fsm/transactions"}, []string{"github.com/twmb/franz-go/pkg/kmsg", "golang.org/x/"},
		"the way to a partition is found from the catalog and from what nodes say of leaders; what a replica is does not matter to it, so it knows no Raft and no disk"},
	{"cluster/diskroom", []string{"cluster/calls", "outcome"}, []string{hashicorp + "raft"},
		"whether there is room is told from node to node; who measures the disk and what follows from it is its node's affair"},
	{"cluster/leading", []string{"cluster/calls", "cluster/election", "cluster/raftgroup", "fsm"}, []string{hashicorp + "raft"},
		"who should lead is said to members, and Raft elects: what runs here and who is there comes from the node, what groups are for does not matter"},
	{"cluster/liveness", []string{"cluster/membership", "cluster/raftgroup", "fsm", "outcome"}, []string{hashicorp + "raft"},
		"who is there is said once, from gossip and connections; what follows from it is decided by who asks"},
	{"cluster/lostquorum", []string{"fsm"}, []string{},
		"how groups go on without a majority is decided from surveys, as values: who takes them and carries the plan out is its caller's affair"},
	{"cluster/calls", []string{"cluster/raftgroup", "cluster/raftlog", "coordinator", "transaction", "fsm", "kafkaproto", "outcome", "admin", "fsm/groups", "fsm/transactions", "security/acl"}, []string{"github.com/twmb/franz-go/pkg/kmsg"},
		"what travels between nodes is words and bytes: who asks brings the way, who answers brings the function"},
	{"cluster/link", []string{"cluster/link/wire"}, []string{"golang.org/x/"},
		"the link carries bytes between nodes and does not know what they mean, nor that Raft exists"},
	{"cluster/peertls", []string{"security/certs"}, []string{"golang.org/x/"},
		"who is at the other end of a connection is proven before anything is said on it, so what is said is unknown here"},
	{"cluster/link/peertest", nil, []string{"github.com/hashicorp/memberlist"},
		"the network of tests is one for bytes and for gossip, and knows nobody who uses it"},
	{"cluster/link/wire", nil, []string{},
		"numbers and byte strings mean nothing by themselves"},
	{"cluster/raftlink", []string{"cluster/link", "cluster/link/wire"}, []string{hashicorp},
		"Raft's messages travel over the link; who is alive is asked of a Host, and what entries mean is nobody's affair here"},
	{"cluster/election", []string{"cluster/link", "cluster/link/wire", "cluster/raftlink"}, []string{hashicorp},
		"who may lead follows from terms, logs and beacons, and from nothing that the groups are for"},
	{"cluster/membership", nil, []string{hashicorp, "golang.org/x/"},
		"gossip suggests and decides nothing, so it needs to know nothing"},
	{"cluster/raftlog", nil, []string{"github.com/hashicorp/go-hclog", "github.com/hashicorp/raft", "golang.org/x/"},
		"the log stores entries and does not know what they mean to the state machine; its files are its own, and no library's"},
	{"cluster/raftlog/bolt", []string{"cluster/raftlog", "cluster/raftlog/vfs"}, []string{hashicorp, "go.etcd.io/bbolt"},
		"what earlier programs kept in a library's files is read in one place, and brought into those of package raftlog"},
	{"cluster/catalog", []string{"cluster/calls", "cluster/identity", "cluster/placement", "cluster/raftgroup", "fsm", "outcome", "admin", "fsm/groups", "security/acl"}, []string{hashicorp + "raft"},
		"the catalog says where replicas should be and runs none; how it reaches other nodes, and where its log lies, is its node's affair"},
	{"cluster/status", []string{"cluster/calls", "cluster/catalog", "cluster/membership", "fsm", "outcome", "admin"}, []string{hashicorp + "raft", "github.com/prometheus/"},
		"what operators are told is seen, not done: what runs here comes through an interface, so it knows neither replicas nor disks"},
	{"cluster/identity", []string{"cluster/raftlog/vfs", "fsm", "outcome"}, []string{},
		"who a node is must be known before it listens or opens anything, so it depends on a file and on nobody else"},
	{"cluster/formation", []string{"cluster/identity", "cluster/membership", "fsm", "outcome"}, []string{},
		"how nodes come to one cluster is a protocol of its own: whoever runs it brings the calls and the registration"},
	{"cluster/placement", []string{"fsm", "outcome"}, []string{},
		"placement is a pure function of nodes and load"},
	{"coordinator", []string{"fsm", "fsm/groups", "internal/tenure", "outcome"}, []string{"github.com/twmb/franz-go/pkg/"},
		"the protocol of consumer groups knows time and what it is given; network, disk and Raft are its callers' affair, and its replicated state is fsm/groups'"},
	{"transaction", []string{"coordinator", "fsm", "fsm/transactions", "internal/tenure", "outcome"}, []string{"github.com/twmb/franz-go/pkg/"},
		"the protocol of transactions knows time and what it is given; network, disk and Raft are its callers' affair, and its replicated state is fsm/transactions'"},
	{"backup", []string{"admin", "fsm", "kafkaproto"}, []string{"github.com/minio/minio-go/", "golang.org/x/"},
		"what is in a store does not depend on who asks for it: whoever calls brings the cluster"},
	{"admin", []string{"fsm", "security/acl"}, []string{},
		"what operators ask and see is no state machine's, and both gateway and cluster speak of it: it names nodes and offsets and does nothing"},
	{"fsm", []string{"outcome", "kafkaproto", "security", "security/acl"}, []string{},
		"the state machines are the bottom of the node; of the wire they know only a record batch's header, of clients only what the catalog keeps about them"},
	{"security", nil, []string{"github.com/go-jose/go-jose/v4"},
		"who may is decided from values: who asks, over what, and where they are kept is others' affair"},
	{"security/certs", []string{"internal/locks"}, []string{},
		"what certificates say and where they are kept is the same for whoever speaks TLS"},
	{"outcome", nil, []string{},
		"why something was not done is said by the lowest and told by the highest, so the list of reasons stands below all"},
	{"kafkaproto", nil, []string{"github.com/twmb/franz-go/pkg/", "github.com/klauspost/compress/", "github.com/pierrec/lz4/"},
		"the wire knows bytes and nobody who handles them"},
	{"kafkaproto/prototest", []string{"kafkaproto"}, []string{"github.com/twmb/franz-go/pkg/kmsg"},
		"what tests append is made by the code that clients' records go through"},
	{"internal/locks", nil, []string{"github.com/petermattis/goid"},
		"the rules of mutexes are the same whatever they guard"},
	{"internal/tenure", []string{"internal/locks"}, []string{},
		"what may outlive nothing is known by when it ends, whatever it does"},
	{"internal/ticks", nil, nil,
		"when something is looked at is the same whatever it is"},
	{"internal/soon", []string{"internal/locks"}, []string{"golang.org/x/"},
		"how a short time is waited for is the same whatever for"},
	{"scripts", []string{"gateway/shim"}, nil,
		"what scripts use looks from outside, as its users do"},
	{"examples", []string{"gateway/shim"}, nil,
		"an example shows what a user can write"},
	{"test/harness", []string{"gateway/shim"}, nil,
		"the harness looks from outside: a checker that shares code with what it checks shares its mistakes; suites and tools stand on it"},
	{"test/suites", []string{"gateway/shim", "test/harness"}, nil,
		"black-box tests look from outside, with the harness's eyes; what two of them need is the harness's"},
	{"test/tools", []string{"gateway/shim", "test/harness", "test/harness/hostnet", "test/harness/mutant"}, nil,
		"what measures and checks looks from outside, with the harness's eyes; what two of them need is the harness's"},
}

const module = "github.com/trimaran-io/trimaran"

// TestMutexesHaveClasses holds that what runs in a node uses the mutexes of package locks, whose
// order is checked in race builds.
func TestMutexesHaveClasses(t *testing.T) {
	seen := 0
	for _, file := range shippedFiles(t) {
		rule, _ := layerOf(file.folder)
		if !rule.locks() || slices.Contains(unclassed, rule.folder) {
			continue
		}
		ast.Inspect(file.parse(t), func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || s.Sel.Name != "Mutex" && s.Sel.Name != "RWMutex" && s.Sel.Name != "Slow" {
				return true
			}
			switch from, _ := s.X.(*ast.Ident); {
			case from == nil:
			case from.Name == "locks":
				seen++
			case from.Name == "sync":
				t.Errorf("%s has a sync.%s: use locks.%[2]s, whose class is the type that holds it", file.name, s.Sel.Name)
			}
			return true
		})
	}
	if seen < 40 {
		t.Errorf("%d mutexes are found: the test does not see them", seen)
	}
}

// TestCoordinatorsOutliveNothing holds that what coordinators start is their tenure's, so that it
// ends with it: a timer of their own would stay behind, which nothing that looks for goroutines
// sees.
func TestCoordinatorsOutliveNothing(t *testing.T) {
	seen := 0
	for _, file := range shippedFiles(t) {
		if file.folder != "coordinator" && file.folder != "transaction" {
			continue
		}
		ast.Inspect(file.parse(t), func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine: use tenure.Go", file.name)
			case *ast.SelectorExpr:
				from, _ := n.X.(*ast.Ident)
				if from != nil && from.Name == "time" && n.Sel.Name == "AfterFunc" {
					t.Errorf("%s sets a timer: use tenure.After", file.name)
				}
				if n.Sel.Name == "After" {
					seen++
				}
			}
			return true
		})
	}
	if seen < 8 {
		t.Errorf("%d timers are found: the test does not see them", seen)
	}
}

// unclassed are folders whose mutexes are those of package sync, although they could have classes.
var unclassed = []string{
	"cluster/link/peertest", // the network of tests is not a part of a node
	"cmd/trimaran",          // commands that end soon; the node has none of its own
	"cmd/trimaran-shim",
}

// locks reports whether the layer's mutexes have classes: those of all that runs in a node.
func (l layer) locks() bool {
	first, _, _ := strings.Cut(l.folder, "/")
	return l.folder != "gateway/shim" && slices.Contains([]string{"cluster", "gateway", "coordinator", "transaction", "cmd"}, first)
}

// layerOf finds the rule of a folder, the longest that fits.
func layerOf(folder string) (layer, bool) {
	var found layer
	for _, l := range layers {
		if inside(folder, l.folder) && len(l.folder) > len(found.folder) {
			found = l
		}
	}
	return found, found.folder != ""
}

func inside(folder, of string) bool { return folder == of || strings.HasPrefix(folder, of+"/") }

// forbids gives the reason why the code of that folder may not import the
// package, "" if it may.
func (l layer) forbids(folder, imported string) string {
	if target, ours := strings.CutPrefix(imported, module+"/"); ours {
		if own, _ := layerOf(target); own.folder == l.folder || slices.Contains(l.ours, target) {
			return ""
		}
		if inside(target, path.Join(folder, "internal")) {
			return ""
		}
		if (target == "internal/locks" || target == "internal/ticks" || target == "internal/soon") && l.locks() {
			return ""
		}
		return l.why
	}
	if first, _, _ := strings.Cut(imported, "/"); l.others == nil || !strings.Contains(first, ".") {
		return "" // anything, or the standard library
	}
	if slices.ContainsFunc(l.others, func(prefix string) bool { return strings.HasPrefix(imported, prefix) }) {
		return ""
	}
	return l.why + "; if this dependency belongs here, add it to layers"
}

type sourceFile struct {
	name    string // from the module's root, with slashes
	folder  string
	imports []string
}

func (f sourceFile) parse(t *testing.T) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(f.name), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// shippedFiles reads the imports of all Go files of this repository but tests.
func shippedFiles(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "bin" || base == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		file := sourceFile{name: filepath.ToSlash(name), folder: path.Dir(filepath.ToSlash(name))}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			file.imports = append(file.imports, imported)
		}
		files = append(files, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		wd, _ := os.Getwd()
		t.Fatalf("only %d files found in %s: the test does not see the repository", len(files), wd)
	}
	return files
}

// TestLayeringSeesAViolation keeps the test above honest.
func TestLayeringSeesAViolation(t *testing.T) {
	for _, c := range []struct {
		folder, imported string
		allowed          bool
	}{
		{"gateway", module + "/cluster", false},
		{"cluster", module + "/gateway", false},
		{"cluster", module + "/cluster/election", true},
		{"cluster/link", module + "/fsm", false},
		{"cluster/link", module + "/cluster", false},
		{"cluster/link", module + "/cluster/raftlink", false},
		{"cluster/link", "github.com/hashicorp/raft", false},
		{"cluster/raftlink", module + "/cluster/link", true},
		{"cluster/raftlink", module + "/cluster/election", false},
		{"cluster/election", module + "/cluster/raftlink", true},
		{"cluster/election", module + "/fsm", false},
		{"cluster/link/peertest", module + "/cluster/link", false},
		{"cluster", module + "/cluster/link/peertest", false},
		{"gateway/shim", module + "/gateway", false},
		{"gateway/listen", module + "/fsm", false},
		{"gateway/session", module + "/gateway/listen", false},
		{"gateway/order", module + "/gateway/session", false},
		{"gateway/shim", module + "/kafkaproto", false},
		{"fsm", module + "/kafkaproto", true},
		{"kafkaproto", module + "/fsm", false},
		{"gateway", "github.com/hashicorp/raft", false},
		{"cluster", "github.com/hashicorp/raft", true},
		{"cluster", module + "/internal/locks", true},
		{"gateway/shim", module + "/internal/locks", false},
		{"fsm", module + "/internal/locks", false},
		{"cluster", "github.com/twmb/franz-go/pkg/kgo", false},
		{"cluster", "github.com/gorilla/websocket", false},
		{"kafkaproto", "encoding/binary", true},
		{"cmd/trimaran-shim", module + "/cluster", false},
		{"test/harness", module + "/test/suites/oracle", false},
		{"test/suites/faults", module + "/test/harness", true},
		{"test/suites/faults", module + "/test/tools/bench", false},
		{"test/tools/durability", module + "/fsm", false},
	} {
		rule, ok := layerOf(c.folder)
		if why := rule.forbids(c.folder, c.imported); !ok || (why == "") != c.allowed {
			t.Errorf("%s imports %s: got %q", c.folder, c.imported, why)
		}
	}
	if _, ok := layerOf("util"); ok {
		t.Error("a folder that nobody decided on has a rule")
	}
}
