package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Root gives the repository's top folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

var built struct {
	sync.Once
	dir string
	err error
}

// Binaries builds trimaran and trimaran-shim, once per process, and gives the
// folder that holds them. Under the race detector they are built with it too, so
// that a race inside a node fails the test that met it (see Node.Races).
// TRIMARAN_BIN names a folder with finished binaries to use instead.
func Binaries() (string, error) {
	built.Do(func() {
		if dir := os.Getenv("TRIMARAN_BIN"); dir != "" {
			built.dir = dir
			return
		}
		dir, err := os.MkdirTemp("", "trimaran-bin-")
		if err != nil {
			built.err = err
			return
		}
		built.dir = dir
		args := []string{"build", "-o", dir + string(filepath.Separator)}
		if raceDetector {
			args = append(args, "-race")
		}
		cmd := exec.Command("go", append(args, "./cmd/trimaran", "./cmd/trimaran-shim")...)
		cmd.Dir = Root()
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the binaries: %w\n%s", err, out)
		}
	})
	return built.dir, built.err
}

// Program gives the path of one of the built binaries.
func Program(name string) (string, error) {
	dir, err := Binaries()
	return filepath.Join(dir, name), err
}

// RemoveBinaries deletes what Binaries built. Call it when the process ends.
func RemoveBinaries() {
	if built.dir != "" && strings.HasPrefix(filepath.Base(built.dir), "trimaran-bin-") {
		os.RemoveAll(built.dir)
	}
}
