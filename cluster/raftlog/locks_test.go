package raftlog

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
)

// inMemory are the types whose lock readers take: nothing is
// waited for and no file touched under them (see the package comment).
var inMemory = []string{"view", "index", "handles", "fileHandle", "spots", "ledger", "groupCache", "cache", "journalFiles", "journal", "Stable"}

// ioNames are what touches a file, or waits for somebody who does.
var ioNames = []string{
	"ReadAt", "WriteAt", "WriteVector", "Truncate", "Allocate", "Sync", "Close", "Open", "Create", "Remove", "Rename", "List",
	"acquire", "release", "sync", "syncDir", "create", "flush", "write", "drop", "append", "check", "search",
}

// TestNothingIsReadOrWrittenUnderALockThatReadersTake looks at each method that takes such a lock: between that and
// the unlocking nothing is called that touches a file, takes another lock or waits.
func TestNothingIsReadOrWrittenUnderALockThatReadersTake(t *testing.T) {
	locked := 0
	for _, file := range sources(t) {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv == nil || !slices.Contains(inMemory, receiver(f)) {
				continue
			}
			held := 0
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if d, ok := n.(*ast.DeferStmt); ok && strings.HasSuffix(called(d.Call), "Unlock") {
					return false // held to the end
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				name := called(call)
				what := name[strings.LastIndex(name, ".")+1:]
				switch {
				case takes(name, "Lock"), takes(name, "RLock"):
					locked++
					if held++; held > 1 {
						t.Errorf("%s takes %s while it holds another lock", f.Name.Name, name)
					}
				case takes(name, "Unlock"), takes(name, "RUnlock"):
					held--
				case held > 0 && what != name && (what == "Lock" || slices.Contains(ioNames, what)):
					t.Errorf("%s calls %s with its lock held", f.Name.Name, name)
				}
				return true
			})
		}
	}
	if locked < 50 {
		t.Errorf("%d methods take a lock: this test looks at the wrong names", locked)
	}
}

// takes reports whether a call does that to a lock that readers take.
func takes(call, what string) bool {
	return strings.HasSuffix(call, "mu."+what) || strings.HasSuffix(call, "state."+what)
}

// TestTheViewIsLockedInItsOwnFiles: who wants to know what holds under the lock of a log's view has these to read.
func TestTheViewIsLockedInItsOwnFiles(t *testing.T) {
	for name, file := range sources(t) {
		if strings.HasPrefix(name, "view") {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && strings.Contains(called(call), "view.mu.") {
				t.Errorf("%s: %s", name, called(call))
			}
			return true
		})
	}
}

func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	names, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, e := range names {
		if strings.HasSuffix(e.Name(), ".go") && !strings.HasSuffix(e.Name(), "_test.go") {
			file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files[e.Name()] = file
		}
	}
	return files
}

// receiver gives the name of a method's type.
func receiver(f *ast.FuncDecl) string {
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if name, ok := typ.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}

// called gives what a call names, as it is written: "v.mu.Lock".
func called(call *ast.CallExpr) string {
	var parts []string
	for expr := call.Fun; ; {
		switch e := expr.(type) {
		case *ast.SelectorExpr:
			parts = append([]string{e.Sel.Name}, parts...)
			expr = e.X
			continue
		case *ast.Ident:
			parts = append([]string{e.Name}, parts...)
		}
		return strings.Join(parts, ".")
	}
}
