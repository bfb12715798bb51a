package replica

import (
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestLocks holds the rule of the package comment as far as the source shows it: under a lock
// nothing is asked of a disk, of other nodes or of Raft's main loop, nothing is waited for, and no
// other lock is taken but in the order that the comment gives.
func TestLocks(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	checked := 0
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(fset, file.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			c := &lockCheck{t: t, fset: fset}
			c.block(f.Body.List, c.heldBy(f))
			checked += c.taken
		}
	}
	if checked < 20 {
		t.Errorf("%d locks are taken: the test does not see them", checked)
	}
}

// TestLocksSeesAViolation keeps the test above honest.
func TestLocksSeesAViolation(t *testing.T) {
	for body, want := range map[string]int{
		"r.mu.Lock(); r.Log.Trim(1, 2); r.mu.Unlock()":                                 1,
		"r.mu.Lock(); r.mu.Unlock(); r.Log.Trim(1, 2)":                                 0,
		"r.mu.Lock(); defer r.mu.Unlock(); s.env.Host.Wake()":                          1,
		"r.mu.Lock(); defer r.mu.Unlock(); <-r.changed":                                1,
		"r.mu.Lock(); defer r.mu.Unlock(); s.mu.Lock()":                                1,
		"r.mu.Lock(); defer r.mu.Unlock(); p.producersMu.Lock()":                       1,
		"p.producersMu.Lock(); defer p.producersMu.Unlock(); r.mu.Lock()":              0,
		"r.mu.Lock(); if a { r.mu.Unlock(); return }; r.group.Raft.Barrier(0)":         1,
		"r.mu.Lock(); if a { r.mu.Unlock(); r.Log.Trim(1, 2); return }; r.mu.Unlock()": 0,
		"r.mu.Lock(); go func() { r.Log.Trim(1, 2) }(); r.mu.Unlock()":                 0,
		"r.mu.Lock(); defer r.mu.Unlock(); r.env.Logger.Info(a)":                       1,
	} {
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, "", "package x\nfunc f() {"+body+"}", 0)
		if err != nil {
			t.Fatal(err)
		}
		c := &lockCheck{fset: fset}
		c.block(parsed.Decls[0].(*ast.FuncDecl).Body.List, nil)
		if c.found != want {
			t.Errorf("%s: %d found, want %d", body, c.found, want)
		}
	}
}

// lockCheck goes over a function in the order of its source.
type lockCheck struct {
	t     *testing.T // nil: what is found is only counted
	fset  *token.FileSet
	taken int
	found int
}

type held map[string]bool

// lockOrder is what may be taken while what is in front of it is held.
var lockOrder = []string{"copying", "producersMu", "mu"}

// heldBy gives the locks that a function's callers hold, by its name.
func (c *lockCheck) heldBy(f *ast.FuncDecl) held {
	if strings.HasSuffix(f.Name.Name, "Locked") {
		return held{"mu": true}
	}
	return nil
}

// block gives what is held behind the statements; nil and true if they do not end.
func (c *lockCheck) block(list []ast.Stmt, before held) (after held, leaves bool) {
	h := maps.Clone(before)
	if h == nil {
		h = held{}
	}
	for _, s := range list {
		if h, leaves = c.statement(s, h); leaves {
			return h, true
		}
	}
	return h, false
}

func (c *lockCheck) statement(s ast.Stmt, h held) (held, bool) {
	switch s := s.(type) {
	case *ast.BlockStmt:
		return c.block(s.List, h)
	case *ast.LabeledStmt:
		return c.statement(s.Stmt, h)
	case *ast.ReturnStmt:
		for _, r := range s.Results {
			c.look(r, h)
		}
		return h, true
	case *ast.BranchStmt:
		return h, true
	case *ast.DeferStmt:
		for _, a := range s.Call.Args {
			c.look(a, h)
		}
		c.literals(s.Call)
	case *ast.GoStmt:
		c.literals(s.Call)
	case *ast.IfStmt:
		if s.Init != nil {
			h, _ = c.statement(s.Init, h)
		}
		c.look(s.Cond, h)
		then, gone := c.block(s.Body.List, h)
		other, otherGone := h, false
		if s.Else != nil {
			other, otherGone = c.statement(s.Else, maps.Clone(h))
		}
		switch {
		case gone && otherGone:
			return h, true
		case gone:
			return other, false
		}
		return then, false
	case *ast.ForStmt:
		c.block(s.Body.List, h)
	case *ast.RangeStmt:
		c.look(s.X, h)
		c.block(s.Body.List, h)
	case *ast.SwitchStmt:
		for _, clause := range s.Body.List {
			c.block(clause.(*ast.CaseClause).Body, h)
		}
	case *ast.SelectStmt:
		waits := true
		for _, clause := range s.Body.List {
			waits = waits && clause.(*ast.CommClause).Comm != nil
			c.block(clause.(*ast.CommClause).Body, h)
		}
		if waits {
			c.bad(s, h, "waits")
		}
	case *ast.ExprStmt:
		if name, lock, ok := lockCall(s.X); ok {
			if lock {
				c.taken++
				for other := range h {
					if slices.Index(lockOrder, other) >= slices.Index(lockOrder, name) {
						c.bad(s, h, "takes "+name)
					}
				}
				h[name] = true
			} else {
				delete(h, name)
			}
			return h, false
		}
		c.look(s.X, h)
	default:
		c.look(s, h)
	}
	return h, false
}

// lockCall reads x.Lock() and x.Unlock().
func lockCall(e ast.Expr) (name string, lock, ok bool) {
	call, is := e.(*ast.CallExpr)
	if !is {
		return "", false, false
	}
	method, is := call.Fun.(*ast.SelectorExpr)
	if !is || method.Sel.Name != "Lock" && method.Sel.Name != "Unlock" {
		return "", false, false
	}
	of, is := method.X.(*ast.SelectorExpr)
	if !is {
		return "", false, false
	}
	return of.Sel.Name, method.Sel.Name == "Lock", true
}

// literals goes over the functions in a call that is made later, or beside this one.
func (c *lockCheck) literals(call *ast.CallExpr) {
	ast.Inspect(call, func(n ast.Node) bool {
		if f, ok := n.(*ast.FuncLit); ok {
			c.block(f.Body.List, nil)
			return false
		}
		return true
	})
}

// look finds what may not be done while something is held.
func (c *lockCheck) look(n ast.Node, h held) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			c.block(n.Body.List, nil)
			return false
		case *ast.SendStmt:
			c.bad(n, h, "sends")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				c.bad(n, h, "receives")
			}
		case *ast.CallExpr:
			var text strings.Builder
			_ = printer.Fprint(&text, c.fset, n.Fun)
			call := text.String()
			for _, outside := range []string{".Log.", ".Host.", ".Logger.", ".Stable.", ".Logs.", ".FS.", ".Ask", ".Await", ".Change", "os.", "time.Sleep"} {
				if strings.Contains("."+call, outside) && !strings.HasPrefix(call, "slog.") {
					c.bad(n, h, "calls "+call)
				}
			}
			if strings.Contains(call, ".Raft.") && !strings.HasSuffix(call, ".State") && !strings.HasSuffix(call, ".CurrentTerm") {
				c.bad(n, h, "calls "+call)
			}
		}
		return true
	})
}

func (c *lockCheck) bad(n ast.Node, h held, what string) {
	if len(h) == 0 || len(h) == 1 && h["copying"] {
		return
	}
	c.found++
	if c.t != nil {
		c.t.Errorf("%v: %s while %v is held: see the package comment", c.fset.Position(n.Pos()), what, slices.Sorted(maps.Keys(h)))
	}
}
