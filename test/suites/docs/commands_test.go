package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// shown gives what a document shows as commands: its indented lines, and its quoted words, which
// may go over the end of a line. A line that ends with a backslash goes on in the next one, and
// what stands behind a # is not meant for the shell.
func shown(text string) (lines []string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			line, _, _ = strings.Cut(line, " #")
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	for _, paragraph := range strings.Split(text, "\n\n") {
		if strings.HasPrefix(paragraph, "    ") {
			continue
		}
		for _, m := range span.FindAllStringSubmatch(paragraph, -1) {
			lines = append(lines, strings.Join(strings.Fields(m[1]), " "))
		}
	}
	return lines
}

var (
	span       = regexp.MustCompile("`([^`]+)`")
	helpFlag   = regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z0-9-]+)(.*)$`)
	helpSub    = regexp.MustCompile(`(?m)^  ([a-z-]+) `)
	usedFlag   = regexp.MustCompile("(?:^|[ \\[(`])--([a-z][a-z0-9-]*)")
	scriptFlag = regexp.MustCompile(`(?m)^\s+--([a-z-]+)(?:=\*)?\)`)
	invoked    = regexp.MustCompile(`(?:^|[ /])(trimaran|trimaran-shim)( .*|$)`)
)

// helps gives the --help of every command, by its name ("trimaran topic create").
var helps = sync.OnceValues(func() (map[string]string, error) {
	out := map[string]string{}
	var walk func(program, name string) error
	walk = func(program, name string) error {
		help, err := exec.Command(program, append(strings.Fields(name)[1:], "--help")...).Output()
		if err != nil {
			return err
		}
		out[name] = string(help)
		if _, list, ok := strings.Cut(string(help), "Available Commands:\n"); ok {
			list, _, _ = strings.Cut(list, "\n\n")
			for _, m := range helpSub.FindAllStringSubmatch(list, -1) {
				if m[1] == "help" {
					continue
				}
				if err := walk(program, name+" "+m[1]); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, name := range []string{"trimaran", "trimaran-shim"} {
		program, err := harness.Program(name)
		if err != nil {
			return nil, err
		}
		if err := walk(program, name); err != nil {
			return nil, err
		}
	}
	return out, nil
})

// flagsOf gives the flags that a command's --help has, with what stands behind each.
func flagsOf(help string) map[string]string {
	out := map[string]string{}
	for _, m := range helpFlag.FindAllStringSubmatch(help, -1) {
		out[m[1]] = m[2]
	}
	return out
}

// Every flag that a document gives to a command, that command has; every other one some command
// has, or a script.
func TestFlagsInDocumentsExist(t *testing.T) {
	commands, err := helps()
	if err != nil {
		t.Fatal(err)
	}
	anywhere := map[string]bool{}
	for _, help := range commands {
		for name := range flagsOf(help) {
			anywhere[name] = true
		}
	}
	scripts, err := filepath.Glob(filepath.Join(harness.Root(), "scripts", "*.sh"))
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, file := range scripts {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range scriptFlag.FindAllSubmatch(b, -1) {
			anywhere[string(m[1])] = true
		}
	}
	seen := 0
	for doc, text := range documents(t) {
		for line := range strings.Lines(text) { // in tables, too
			for _, m := range usedFlag.FindAllStringSubmatch(line, -1) {
				if !anywhere[m[1]] && !kafkasFlags[m[1]] && !otherTools.MatchString(line) {
					t.Errorf("%s says %q: nothing has --%s", doc, strings.TrimSpace(line), m[1])
				}
			}
		}
		for _, line := range shown(text) {
			used := usedFlag.FindAllStringSubmatch(line, -1)
			name := commandOf(commands, line)
			if len(used) == 0 || name == "" || otherTools.MatchString(line) {
				continue
			}
			seen++
			for _, m := range used {
				if _, ok := flagsOf(commands[name])[m[1]]; !ok {
					t.Errorf("%s shows %q: %s has no --%s", doc, line, name, m[1])
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d lines with flags found: the test does not see them", seen)
	}
}

// otherTools are lines that show other programs.
var otherTools = regexp.MustCompile(`kafka-|(^|\s)(npm|git|curl|go|mvn) `)

// kafkasFlags are flags of Kafka's tools that documents name without the tool.
var kafkasFlags = map[string]bool{"add-scram": true, "consumer": true, "generate": true, "under-min-isr-partitions": true}

// commandOf gives the longest name of a command that a line begins, or "".
func commandOf(commands map[string]string, line string) (name string) {
	m := invoked.FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	name = m[1]
	for _, word := range strings.Fields(m[2]) {
		if _, ok := commands[name+" "+word]; !ok {
			break
		}
		name += " " + word
	}
	return name
}

// A command that a document shows with words behind it is one: trimaran topic create, not trimaran
// topics make.
func TestCommandsInDocumentsExist(t *testing.T) {
	commands, err := helps()
	if err != nil {
		t.Fatal(err)
	}
	shows := regexp.MustCompile(`^(?:bin/|\./|echo \w+ \| (?:bin/)?)?trimaran ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?`)
	seen := 0
	for doc, text := range documents(t) {
		for _, line := range shown(text) {
			m := shows.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			seen++
			name := "trimaran " + m[1]
			if _, ok := commands[name]; !ok {
				t.Errorf("%s shows %q: there is no %s", doc, line, name)
				continue
			}
			if _, ok := commands[name+" "+m[2]]; m[2] != "" && !ok && strings.Contains(commands[name], "Available Commands:") {
				t.Errorf("%s shows %q: there is no %s %s", doc, line, name, m[2])
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d commands found: the test does not see them", seen)
	}
}

// The default that a table of docs/operations.md gives for a flag is that of `trimaran serve`.
func TestDefaultsInDocuments(t *testing.T) {
	commands, err := helps()
	if err != nil {
		t.Fatal(err)
	}
	flags := flagsOf(commands["trimaran serve"])
	row := regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| ([0-9a-z-]+)")
	stated := regexp.MustCompile(`\(default "?([^")]+)"?\)`)
	rows := row.FindAllStringSubmatch(documents(t)["docs/operations.md"], -1)
	if len(rows) < 10 {
		t.Errorf("only %d rows found: the test does not see them", len(rows))
	}
	for _, m := range rows {
		d := stated.FindStringSubmatch(flags[m[1]])
		if d == nil || d[1] != m[2] {
			t.Errorf("docs/operations.md says that --%s is %s by default; trimaran serve --help: %s", m[1], m[2], flags[m[1]])
		}
	}
	// And in a sentence: `--flag` (default 4MiB …
	inText := regexp.MustCompile("`--([a-z-]+)`,? (?:[a-z ]+ )?\\(default ([0-9A-Za-z]+)")
	for _, m := range inText.FindAllStringSubmatch(strings.Join(strings.Fields(documents(t)["docs/operations.md"]), " "), -1) {
		if d := stated.FindStringSubmatch(flags[m[1]]); d == nil || d[1] != m[2] {
			t.Errorf("docs/operations.md says that --%s is %s by default; trimaran serve --help: %s", m[1], m[2], flags[m[1]])
		}
	}
}

// Every test and benchmark that a document names is there; with … behind it, one that begins so.
func TestTestsInDocumentsExist(t *testing.T) {
	var names []string
	for _, file := range goFiles(t) {
		if !strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(harness.Root(), file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names = append(names, f.Name.Name)
			}
		}
	}
	named := regexp.MustCompile(`\b((?:Test|Benchmark|Fuzz)[A-Z0-9]\w*)(…?)`)
	for doc, text := range documents(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if !slices.ContainsFunc(names, func(name string) bool {
				return name == m[1] || m[2] != "" && strings.HasPrefix(name, m[1])
			}) {
				t.Errorf("%s names %s, which no test is called", doc, m[1]+m[2])
			}
		}
	}
}

// Every `go test -run NAME` and `go test -bench NAME` in a document finds something, and what is
// measured there runs.
func TestGoTestsInDocumentsRun(t *testing.T) {
	command := regexp.MustCompile(`^((?:[A-Z_]+=\S+ )*)go test -(run|bench) (\S+) (\./\S+)$`)
	seen := 0
	for doc, text := range documents(t) {
		for _, line := range shown(text) {
			m := command.FindStringSubmatch(line)
			if m == nil {
				if strings.Contains(line, "go test ") && (strings.Contains(line, "-run") || strings.Contains(line, "-bench")) {
					t.Errorf("%s shows %q, which this test does not understand", doc, line)
				}
				continue
			}
			seen++
			dir := harness.Root()
			if _, err := os.Stat(filepath.Join(dir, m[4])); err != nil {
				dir = filepath.Join(dir, "test")
			}
			args := []string{"test", "-list", m[3], m[4]}
			if m[2] == "bench" {
				args = []string{"test", "-run", "^$", "-bench", m[3], "-benchtime", "1x", m[4]}
			}
			cmd := exec.Command("go", args...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if found := regexp.MustCompile(`(?m)^(Test|Benchmark)\w`).Match(out); err != nil || !found {
				t.Errorf("%s shows %q: go %s: %v\n%s", doc, line, strings.Join(args, " "), err, out)
			}
		}
	}
	if seen < 2 {
		t.Errorf("only %d commands found: the test does not see them", seen)
	}
}

// Flags of this repository's own tools are there where a document gives them, and so are the
// sections and loads of the benchmarks that -only asks for.
func TestToolsInDocuments(t *testing.T) {
	root := harness.Root()
	// What make passes on to which tool.
	variables := map[string]string{"VERSUS": "bench", "HEAVY": "bench", "SCALE": "transactionscale", "INTEROP": "interop", "SECURED": "interop",
		"CHAOS_NET": "chaosnet", "TRANSACTIONS": "transactions", "MUTANTS": "transactions/mutants"}
	running := regexp.MustCompile(`go run \./tools/(\S+)(.*)`)
	passing := regexp.MustCompile(`make \S+ ([A-Z_]+)=(.*)`)
	flagged := regexp.MustCompile(`(?:^|[ '])-([a-z][a-z0-9-]*)(?:[ =]|'|$)`)
	only := regexp.MustCompile(`-only (?:'([^']+)'|"([^"]+)"|([^ ']+))`)
	seen := 0
	for doc, text := range documents(t) {
		for _, line := range shown(text) {
			tool, args := "", ""
			if m := running.FindStringSubmatch(line); m != nil {
				tool, args = m[1], m[2]
			} else if m := passing.FindStringSubmatch(line); m != nil && variables[m[1]] != "" {
				tool, args = variables[m[1]], m[2]
			} else {
				continue
			}
			seen++
			code := sourceOf(t, filepath.Join(root, "test", "tools", filepath.FromSlash(tool)))
			for _, m := range flagged.FindAllStringSubmatch(args, -1) {
				if !strings.Contains(code, `"`+m[1]+`", `) {
					t.Errorf("%s shows %q: %s has no -%s", doc, line, tool, m[1])
				}
			}
			if m := only.FindStringSubmatch(args); m != nil && tool == "bench" {
				pattern := regexp.MustCompile(m[1] + m[2] + m[3])
				var names []string
				if strings.Contains(line, "VERSUS") {
					names = loadsOf(code)
				} else {
					for _, s := range regexp.MustCompile(`(?m)^\t\{"([a-z]+)", "`).FindAllStringSubmatch(code, -1) {
						names = append(names, s[1])
					}
				}
				if !slices.ContainsFunc(names, pattern.MatchString) {
					t.Errorf("%s shows %q: nothing is called so; there are %v", doc, line, names)
				}
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d commands found: the test does not see them", seen)
	}
	// section `start` of make bench
	named := regexp.MustCompile("sections? `([a-z]+)`")
	bench := sourceOf(t, filepath.Join(root, "test", "tools", "bench"))
	for doc, text := range documents(t) {
		for _, m := range named.FindAllStringSubmatch(strings.Join(strings.Fields(text), " "), -1) {
			if !strings.Contains(bench, "\t{"+strconv.Quote(m[1])+", ") {
				t.Errorf("%s names the section %s, which make bench does not have", doc, m[1])
			}
		}
	}
}

// loadsOf gives SYSTEM/LOAD for all that bench -versus measures.
func loadsOf(code string) (out []string) {
	for _, system := range regexp.MustCompile(`\{name: "([a-z-]+)", what: "`).FindAllStringSubmatch(code, -1) {
		for _, load := range regexp.MustCompile(`\{name: "([0-9a-z-]+)", what: "`).FindAllStringSubmatch(code, -1) {
			out = append(out, system[1]+"/"+load[1])
		}
	}
	return out
}

// sourceOf gives all Go code of a folder, in one piece.
func sourceOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(dir, files, err)
	}
	var code strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(b)
	}
	return code.String()
}

// Every section that a link goes to is there.
func TestAnchorsInDocumentsExist(t *testing.T) {
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	to := regexp.MustCompile(`\]\(([^)#\s]*)#([^)\s]+)\)`)
	docs := documents(t)
	anchors := map[string]map[string]bool{}
	for doc, text := range docs {
		anchors[doc] = map[string]bool{}
		for _, m := range heading.FindAllStringSubmatch(text, -1) {
			name := regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
			anchors[doc][strings.ReplaceAll(name, " ", "-")] = true
		}
	}
	for _, doc := range slices.Sorted(maps.Keys(docs)) {
		for _, m := range to.FindAllStringSubmatch(docs[doc], -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			where := doc
			if m[1] != "" {
				where = filepath.ToSlash(filepath.Join(filepath.Dir(doc), m[1]))
			}
			if !anchors[where][m[2]] {
				t.Errorf("%s links to %s#%s, and %s has no such section", doc, m[1], m[2], where)
			}
		}
	}
}

// Every variable of the environment that a document sets is read somewhere.
func TestVariablesInDocumentsExist(t *testing.T) {
	set := regexp.MustCompile(`(?:^| )([A-Z][A-Z0-9_]*[A-Z0-9])=\S`)
	var code strings.Builder
	root := harness.Root()
	for _, file := range goFiles(t) {
		if b, err := os.ReadFile(filepath.Join(root, file)); err == nil {
			code.Write(b)
		}
	}
	for _, pattern := range []string{"Makefile", "scripts/*.sh", "console/test/*.mjs", "clients/js/test/*"} {
		files, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, file := range files {
			if b, err := os.ReadFile(file); err == nil {
				code.Write(b)
			}
		}
	}
	commands, err := helps()
	if err != nil {
		t.Fatal(err)
	}
	for _, help := range commands {
		for name := range flagsOf(help) {
			code.WriteString(" TRIMARAN_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + " TRIMARAN_SHIM_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
		}
	}
	for doc, text := range documents(t) {
		for _, line := range shown(text) {
			for _, m := range set.FindAllStringSubmatch(line, -1) {
				if !regexp.MustCompile(`\b` + m[1] + `\b`).MatchString(code.String()) {
					t.Errorf("%s shows %q: nothing reads %s", doc, line, m[1])
				}
			}
		}
	}
}
