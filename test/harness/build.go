package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// Root gives the repository's top folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// build is one way of building the two binaries, done once per process.
type build struct {
	race bool
	tags string
	once sync.Once
	dir  string
	made bool // dir is ours to remove
	err  error
}

var (
	served = build{race: raceDetector}
	plain  = build{}
	// measuring has the tag under which variables of the environment turn off what is measured.
	measuring = build{tags: "measure"}
)

// Program gives the path of trimaran or trimaran-shim as the harness runs them.
// Under the race detector they are built with it too, so that a race inside a
// node fails the test that met it (see Process.Complaint). TRIMARAN_BIN names a
// folder with finished binaries to use instead.
func Program(name string) (string, error) {
	dir, err := served.get()
	return filepath.Join(dir, name), err
}

// PlainBinaries gives the folder with trimaran and trimaran-shim as users have
// them, without the race detector, for scripts and command lines.
func PlainBinaries() (string, error) { return plain.get() }

// MeasuringProgram gives the path of a trimaran that obeys TRIMARAN_TEST_JOURNAL=off,
// TRIMARAN_TEST_SYNC=off (or a duration: each sync takes so long) and TRIMARAN_TEST_AHEAD=off, as
// no program does that users have. It is always built here.
func MeasuringProgram() (string, error) {
	dir, err := measuring.get()
	return filepath.Join(dir, "trimaran"), err
}

func (b *build) get() (string, error) {
	b.once.Do(func() {
		if b.dir = os.Getenv("TRIMARAN_BIN"); b.dir != "" && b.tags == "" {
			return
		}
		if b.dir, b.err = os.MkdirTemp("", "trimaran-bin-"); b.err != nil {
			return
		}
		b.made = true
		args := []string{"build", "-o", b.dir + string(filepath.Separator)}
		if b.race {
			args = append(args, "-race") // and what go test -race has compiled is used
		} else {
			args = append(args, "-trimpath") // as ProgramOf does, for the same reason
		}
		if b.tags != "" {
			args = append(args, "-tags", b.tags)
		}
		cmd := exec.Command("go", append(args, "./cmd/trimaran", "./cmd/trimaran-shim")...)
		cmd.Dir = Root()
		if out, err := cmd.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("build the binaries: %w\n%s", err, out)
		}
	})
	return b.dir, b.err
}

// RemoveBinaries deletes what was built. Call it when the process ends.
func RemoveBinaries() {
	for _, b := range []*build{&served, &plain, &measuring} {
		if b.made {
			os.RemoveAll(b.dir)
		}
	}
	commits.Lock()
	defer commits.Unlock()
	for _, b := range commits.builds {
		os.RemoveAll(b.dir)
	}
}

// commits has what ProgramOf has built.
var commits struct {
	sync.Mutex // guards builds, not what becomes of one
	builds     map[string]*commitBuild
}

type commitBuild struct {
	once sync.Once
	dir  string
	err  error
}

// ProgramOf gives the path of the node's binary as a commit of this repository has it, without the
// race detector; it is built once per process. It needs the repository's history, and git.
func ProgramOf(commit string) (string, error) {
	commits.Lock()
	if commits.builds == nil {
		commits.builds = map[string]*commitBuild{}
	}
	b := commits.builds[commit]
	if b == nil {
		b = new(commitBuild)
		b.dir, b.err = os.MkdirTemp("", "trimaran-commit-")
		commits.builds[commit] = b
	}
	commits.Unlock()
	program := filepath.Join(b.dir, "trimaran")
	b.once.Do(func() {
		if b.err != nil {
			return
		}
		tree := filepath.Join(b.dir, "tree")
		defer os.RemoveAll(tree)
		// -trimpath: what two commits have in common is compiled once, although they lie in
		// different folders.
		script := `mkdir "$2" && git -C "$0" archive --format=tar "$1" > "$2.tar" && tar -x -f "$2.tar" -C "$2" && rm "$2.tar" && cd "$2" && go build -trimpath -buildvcs=false -o "$3" ./cmd/trimaran`
		if out, err := exec.Command("sh", "-c", script, Root(), commit, tree, program).CombinedOutput(); err != nil {
			b.err = fmt.Errorf("the binary of %s: %w\n%s", commit, err, out)
		}
	})
	return program, b.err
}
