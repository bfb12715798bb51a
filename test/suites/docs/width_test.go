package docs

import (
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

// most is how many columns a line of prose may have, in documents and in comments.
const most = 100

// columns counts what a line takes where tabs lead to the next column that four divides.
func columns(line string) (n int) {
	for _, r := range line {
		n++
		if r == '\t' {
			n += 3 - (n-1)%4
		}
	}
	return n
}

// Lines of documents have at most 100 columns. A row of a table cannot be broken, nor can an
// address.
func TestLinesOfDocuments(t *testing.T) {
	for doc, text := range documents(t) {
		n := 0
		for line := range strings.Lines(text) {
			n++
			line = strings.TrimRight(line, "\n")
			if columns(line) > most && !strings.HasPrefix(line, "|") && !strings.Contains(line, "://") {
				t.Errorf("%s:%d has %d columns, %d are the most: %s", doc, n, columns(line), most, line)
			}
		}
	}
}

// So have lines of Go that end with a comment, in what ships and in tests. Directives, which tools
// read, and addresses stay whole.
func TestLinesOfComments(t *testing.T) {
	root := harness.Root()
	for _, file := range goFiles(t) {
		source, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(source), "\n")
		files := token.NewFileSet()
		var s scanner.Scanner
		s.Init(files.AddFile(file, -1, len(source)), source, nil, scanner.ScanComments)
		for {
			pos, tok, text := s.Scan()
			if tok == token.EOF {
				break
			}
			if tok != token.COMMENT || isDirective(text) {
				continue
			}
			first := files.PositionFor(pos, false).Line
			for i := range strings.Split(text, "\n") {
				line := lines[first-1+i]
				if columns(line) > most && !strings.Contains(line, "://") {
					t.Errorf("%s:%d has %d columns with its comment, %d are the most (a tab is four)",
						file, first+i, columns(line), most)
				}
			}
		}
	}
}

// isDirective tells what tools read from what people do.
func isDirective(comment string) bool {
	return strings.HasPrefix(comment, "//") && comment != "//" &&
		!strings.HasPrefix(comment, "// ") && !strings.HasPrefix(comment, "//\t")
}
