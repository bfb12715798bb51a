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
		"iter", "maps", "math", "math/bits", "slices", "sort", "strconv", "strings", "unicode", "unicode/utf8",
	}
	for _, file := range shippedFiles(t) {
		if !inside(file.folder, "fsm") && file.folder != "cluster/placement" && file.folder != "outcome" {
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
	{"cmd/internal/terminal", nil, nil,
		"what is fit for a terminal does not depend on where it comes from"},
	{"cmd/trimaran", []string{"cmd/internal/collector", "cmd/internal/descriptors", "cmd/internal/logs", "cmd/internal/terminal", "gateway", "gateway/shim", "cluster", "coordinator", "admin", "fsm", "outcome", "kafkaproto"}, nil,
		"the node's command introduces gateway and cluster to each other; what lies below them is their affair"},
	{"cmd/trimaran-shim", []string{"cmd/internal/collector", "cmd/internal/descriptors", "cmd/internal/logs", "gateway/shim"}, nil,
		"the shim runs beside clients and must not carry a node"},
	{"gateway", []string{"admin", "coordinator", "fsm", "outcome", "kafkaproto", "gateway/shim"}, []string{"github.com/gorilla/", "github.com/prometheus/", "github.com/twmb/franz-go/", "golang.org/x/"},
		"the gateway knows the cluster only by the interface it declares, so that either can be understood, tested and replaced alone"},
	{"gateway/shim", nil, []string{"github.com/gorilla/websocket", "golang.org/x/"},
		"clients compile this package into their programs: it brings nothing along"},
	{"cluster", []string{"cluster/peer", "cluster/membership", "cluster/placement", "cluster/raftlog", "cluster/raftlog/vfs", "admin", "coordinator", "fsm", "fsm/groups", "outcome", "kafkaproto"}, []string{hashicorp, "go.etcd.io/bbolt", "github.com/prometheus/", "github.com/twmb/franz-go/pkg/kmsg", "golang.org/x/"},
		"the cluster does not know that clients and sessions exist; requests of consumer groups, in kmsg's structures, are all it carries for them, unread"},
	{"cluster/peer", nil, []string{hashicorp, "golang.org/x/"},
		"the peer link carries bytes between nodes and does not know what they mean"},
	{"cluster/membership", nil, []string{hashicorp, "golang.org/x/"},
		"gossip suggests and decides nothing, so it needs to know nothing"},
	{"cluster/raftlog", nil, []string{hashicorp, "go.etcd.io/bbolt", "golang.org/x/"},
		"the log stores entries and does not know what they mean to the state machine"},
	{"cluster/placement", []string{"fsm", "outcome"}, []string{},
		"placement is a pure function of nodes and load"},
	{"coordinator", []string{"fsm/groups"}, []string{"github.com/twmb/franz-go/pkg/"},
		"the protocol of consumer groups knows time and what it is given; network, disk and Raft are its callers' affair, and its replicated state is fsm/groups'"},
	{"admin", []string{"fsm"}, []string{},
		"what operators ask and see is no state machine's, and both gateway and cluster speak of it: it names nodes and offsets and does nothing"},
	{"fsm", []string{"outcome", "kafkaproto"}, []string{},
		"the state machines are the bottom of the node; of the wire they know only a record batch's header"},
	{"outcome", nil, []string{},
		"why something was not done is said by the lowest and told by the highest, so the list of reasons stands below all"},
	{"kafkaproto", nil, []string{"github.com/twmb/franz-go/pkg/", "github.com/klauspost/compress/", "github.com/pierrec/lz4/"},
		"the wire knows bytes and nobody who handles them"},
	{"internal", []string{"fsm", "kafkaproto"}, nil,
		"what everyone may use cannot use everyone"},
	{"scripts", []string{"gateway/shim"}, nil,
		"what scripts use looks from outside, as its users do"},
	{"examples", []string{"gateway/shim"}, nil,
		"an example shows what a user can write"},
	{"test/harness", []string{"gateway/shim"}, nil,
		"the harness looks from outside: a checker that shares code with what it checks shares its mistakes; suites and tools stand on it"},
	{"test/suites", []string{"gateway/shim", "test/harness"}, nil,
		"black-box tests look from outside, with the harness's eyes; what two of them need is the harness's"},
	{"test/tools", []string{"gateway/shim", "test/harness"}, nil,
		"what measures and checks looks from outside, with the harness's eyes; what two of them need is the harness's"},
}

const module = "github.com/trimaran-io/trimaran"

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
		{"cluster", module + "/cluster/peer", true},
		{"cluster/peer", module + "/fsm", false},
		{"cluster/peer", module + "/cluster", false},
		{"cluster/peer/peertest", module + "/cluster/peer", true},
		{"cluster", module + "/cluster/peer/peertest", false},
		{"gateway/shim", module + "/gateway", false},
		{"gateway/shim", module + "/kafkaproto", false},
		{"fsm", module + "/kafkaproto", true},
		{"kafkaproto", module + "/fsm", false},
		{"gateway", "github.com/hashicorp/raft", false},
		{"cluster", "github.com/hashicorp/raft", true},
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
