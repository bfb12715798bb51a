package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

// goFiles gives every Go file of the repository, by its path from the top.
func goFiles(t *testing.T) (files []string) {
	t.Helper()
	root := harness.Root()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() && rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(rel, ".go") {
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// declared is what Go files declare: packages, names at the top of a file, and Type.Member for
// methods and fields.
type declared map[string]bool

func (d declared) add(file *ast.File) {
	d[file.Name.Name] = true
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil {
				d[decl.Name.Name] = true
				d[file.Name.Name+"."+decl.Name.Name] = true
			} else {
				d.member(file, typeName(decl.Recv.List[0].Type), decl.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				d.spec(file, spec)
			}
		}
	}
}

func (d declared) spec(file *ast.File, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			d[name.Name] = true
			d[file.Name.Name+"."+name.Name] = true
		}
	case *ast.TypeSpec:
		name := spec.Name.Name
		d[name] = true
		d[file.Name.Name+"."+name] = true
		var fields *ast.FieldList
		switch what := spec.Type.(type) {
		case *ast.StructType:
			fields = what.Fields
		case *ast.InterfaceType:
			fields = what.Methods
		default:
			return
		}
		for _, field := range fields.List {
			for _, member := range field.Names {
				d.member(file, name, member.Name)
			}
		}
	}
}

func (d declared) member(file *ast.File, of, name string) {
	d[of+"."+name] = true
	d[file.Name.Name+"."+of+"."+name] = true
}

// typeName is the name of a receiver's type.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

var (
	// A name of Go's: one with a dot in it, or with a capital letter behind the first.
	goName = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,2}(\(\))?$`)
	// A name with a dot that is none of Go's: a file, or a topic's configuration.
	goFile    = regexp.MustCompile(`^\w+\.go$`)
	otherName = regexp.MustCompile(`\.(go|md|sh|json|db|log|txt|ms|bytes|org|policy)$`)
)

// looksLikeGo tells names of the code from other quoted words.
func looksLikeGo(word string) bool {
	return goName.MatchString(word) && !otherName.MatchString(word) &&
		(strings.ContainsAny(word, ".(") || strings.ToLower(word) != word)
}

// Every name of the code that docs/architecture.md and docs/peer-link.md give is declared there,
// and every file is there (those with a folder: TestPathsInDocumentsExist). A name with … behind it
// is the beginning of one.
func TestNamesInDocumentsExist(t *testing.T) {
	names, files := declared{}, map[string]bool{}
	for _, file := range goFiles(t) {
		files[filepath.Base(file)] = true
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(harness.Root(), file), nil,
			parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		names.add(parsed)
	}
	begins := func(prefix string) bool {
		for name := range names {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	}
	seen := 0
	for _, doc := range []string{"docs/architecture.md", "docs/peer-link.md"} {
		for _, m := range quoted.FindAllStringSubmatch(documents(t)[doc], -1) {
			if goFile.MatchString(m[1]) && !files[m[1]] {
				t.Errorf("%s names %s, and no file is called so", doc, m[1])
			}
			word, cut := strings.CutSuffix(m[1], "…")
			if !looksLikeGo(word) {
				continue
			}
			seen++
			word = strings.TrimSuffix(word, "()")
			if !names[word] && !(cut && begins(word)) {
				t.Errorf("%s names %s, which nothing in the code is called", doc, m[1])
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d names found: the test does not see them", seen)
	}
}
