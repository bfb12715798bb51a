// Package docs compares what the documents say with what is there: paths, names, targets, metrics,
// the table of served APIs, the map of folders; and it measures lines.
//
// You are here: a reader who checks.
package docs

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/test/harness"
)

// documents gives every Markdown file of the repository, by its path from the top.
func documents(t *testing.T) map[string]string {
	t.Helper()
	root := harness.Root()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == ".run" || d.Name() == "bin" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(root, path)
			out[rel] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, must := range []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/operations.md", "docs/protocol.md"} {
		if out[must] == "" {
			t.Errorf("%s is missing or empty", must)
		}
	}
	return out
}

var (
	quoted = regexp.MustCompile("`([^`\n]+)`")
	link   = regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	target = regexp.MustCompile(`\bmake ([a-z][a-z-]*)`)
	path   = regexp.MustCompile(`^\.?[A-Za-z0-9_-]+(/[A-Za-z0-9_.-]+)*/?$`)
	script = regexp.MustCompile(`\b(?:scripts|examples|\.ci)/[A-Za-z0-9_./-]*[A-Za-z0-9_]`)
)

// Every folder, file and link that a document names is there.
func TestPathsInDocumentsExist(t *testing.T) {
	root := harness.Root()
	tops := map[string]bool{}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		tops[e.Name()] = e.Name() != "bin" // what is in there is built, or is not
	}
	exists := func(p string) bool { _, err := os.Stat(p); return err == nil }
	for doc, text := range documents(t) {
		here := filepath.Join(root, filepath.Dir(doc))
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(m[1], "://") && !exists(filepath.Join(here, m[1])) {
				t.Errorf("%s links to %s, which is not there", doc, m[1])
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			word := strings.TrimSuffix(m[1], "/")
			first, _, nested := strings.Cut(word, "/")
			looksLikePath := path.MatchString(word) && (nested && tops[first] || strings.HasSuffix(word, ".md") || strings.HasSuffix(word, ".go"))
			if looksLikePath && !exists(filepath.Join(root, word)) && !exists(filepath.Join(here, word)) {
				t.Errorf("%s names %s, which is not there", doc, m[1])
			}
		}
		for _, p := range script.FindAllString(text, -1) {
			if !exists(filepath.Join(root, p)) {
				t.Errorf("%s names %s, which is not there", doc, p)
			}
		}
	}
}

// Every make target that a document names is one.
func TestMakeTargetsInDocumentsExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(harness.Root(), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for doc, text := range documents(t) {
		for _, block := range codeOf(text) {
			for _, m := range target.FindAllStringSubmatch(block, -1) {
				if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(m[1]) + `:`).Match(makefile) {
					t.Errorf("%s says make %s, which the Makefile does not have", doc, m[1])
				}
			}
		}
	}
}

// codeOf gives what a document shows as code: quoted words and indented lines.
func codeOf(text string) []string {
	var out []string
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			out = append(out, line)
		}
	}
	return out
}

var metric = regexp.MustCompile(`["\x60](trimaran_[a-z_]+)["\x60]`)

// docs/operations.md names every metric, and no other.
func TestMetrics(t *testing.T) {
	root := harness.Root()
	documented, exported := map[string]bool{}, map[string]bool{}
	for _, m := range metric.FindAllStringSubmatch(documents(t)["docs/operations.md"], -1) {
		documented[m[1]] = true
	}
	for _, dir := range []string{"cluster", "gateway", "coordinator", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range metric.FindAllSubmatch(b, -1) {
				exported[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range exported {
		if !documented[name] {
			t.Errorf("docs/operations.md misses %s", name)
		}
	}
	for name := range documented {
		if !exported[name] {
			t.Errorf("docs/operations.md has %s, which no node or shim exports", name)
		}
	}
}

// The tables in docs/protocol.md are those of the code: the one that ApiVersions answers
// with and requests are dispatched by, and that of topics' configurations.
func TestProtocolTables(t *testing.T) {
	for _, table := range []struct {
		begin, end string
		write      func(io.Writer) error
	}{
		{"<!-- table: begin -->\n", "<!-- table: end -->\n", kafkaproto.WriteTable},
		{"<!-- configurations: begin -->\n", "<!-- configurations: end -->\n", fsm.WriteConfigTable},
	} {
		file := filepath.Join(harness.Root(), "docs", "protocol.md")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		i, j := strings.Index(text, table.begin), strings.Index(text, table.end)
		if i < 0 || j < i {
			t.Fatalf("docs/protocol.md has no %q … %q", table.begin, table.end)
		}
		var want bytes.Buffer
		if err := table.write(&want); err != nil {
			t.Fatal(err)
		}
		if got := text[i+len(table.begin) : j]; got != want.String() {
			if os.Getenv("TRIMARAN_UPDATE") == "1" {
				text = text[:i+len(table.begin)] + want.String() + text[j:]
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			t.Errorf("docs/protocol.md has another table (TRIMARAN_UPDATE=1 writes it):\n%s\nthe code has\n%s", got, want.String())
		}
	}
}

// The map in docs/architecture.md names every folder that holds Go code, and no other.
func TestMapOfFolders(t *testing.T) {
	const begin, end = "<!-- map: begin -->\n", "<!-- map: end -->\n"
	text := documents(t)["docs/architecture.md"]
	i, j := strings.Index(text, begin), strings.Index(text, end)
	if i < 0 || j < i {
		t.Fatalf("docs/architecture.md has no %q … %q", begin, end)
	}
	var onMap []string
	for line := range strings.Lines(text[i:j]) {
		if m := quoted.FindStringSubmatch(line); m != nil {
			onMap = append(onMap, m[1])
		}
	}
	root := harness.Root()
	var inTree []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || rel == "test" || rel == "examples" || rel == "scripts" || rel == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if dir := filepath.Dir(rel); dir != "." && strings.HasSuffix(p, ".go") && !slices.Contains(inTree, dir) {
			inTree = append(inTree, dir)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	inTree = append(inTree, "scripts", "docs", "examples", "test", "test/harness", "test/suites", "test/tools")
	for _, dir := range inTree {
		if !slices.Contains(onMap, dir) {
			t.Errorf("the map in docs/architecture.md misses %s", dir)
		}
	}
	for _, dir := range onMap {
		if !slices.Contains(inTree, dir) {
			t.Errorf("the map in docs/architecture.md has %s, the tree has not", dir)
		}
	}
}
