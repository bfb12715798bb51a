package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// preparer makes clients ready: it installs and builds into the cache folder, and
// does nothing a second time for the same pinned versions.
type preparer struct {
	cache   string
	clients string // test/tools/interop/clients
	done    map[string]error
}

// prepareAll makes every row ready, one after the other: the tools behind it use
// all cores by themselves.
func prepareAll(ctx context.Context, s settings, rows []row) []prepared {
	p := &preparer{cache: s.cache, clients: filepath.Join(harness.Root(), "test", "tools", "interop", "clients"), done: map[string]error{}}
	var out []prepared
	for _, r := range rows {
		started := time.Now()
		prog, err := r.prepare(p, ctx, r)
		if err != nil {
			say("missing %s: %v", r.name, err)
			err = errors.New(strings.Join(strings.Fields(err.Error()), " "))
		} else if d := time.Since(started); d > time.Second {
			say("prepared %s %s in %.0f s", r.name, r.version, d.Seconds())
		}
		out = append(out, prepared{row: r, program: prog, err: err})
	}
	return out
}

// need looks for programs of the machine.
func need(programs ...string) error {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not installed", p)
		}
	}
	return nil
}

// once runs steps for a folder of the cache unless they were run for the same
// inputs before: files and words. The steps find an empty folder with the files in it.
func (p *preparer) once(name string, inputs []string, words []string, steps func(dir string) error) (string, error) {
	files := map[string]string{}
	for _, in := range inputs {
		// A client's own folder is the top of the cache folder.
		_, rel, _ := strings.Cut(in, "/")
		files[rel] = filepath.Join(p.clients, in)
	}
	return p.onceIn(name, files, words, steps)
}

// onceIn is once for files from anywhere, by their names in the cache folder.
func (p *preparer) onceIn(name string, files map[string]string, words []string, steps func(dir string) error) (string, error) {
	sum := sha256.New()
	for _, w := range words {
		fmt.Fprintf(sum, "%q\n", w)
	}
	content := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b, err := os.ReadFile(files[name])
		if err != nil {
			return "", err
		}
		content[name] = b
		fmt.Fprintf(sum, "%q %d\n", name, len(b))
		sum.Write(b)
	}
	dir := filepath.Join(p.cache, fmt.Sprintf("%s-%x", name, sum.Sum(nil)[:6]))
	if err, was := p.done[dir]; was {
		return dir, err
	}
	stamp := filepath.Join(dir, ".ready")
	if _, err := os.Stat(stamp); err == nil {
		p.done[dir] = nil
		return dir, nil
	}
	err := func() error {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		for name, b := range content {
			to := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
				return err
			}
			if err := os.WriteFile(to, b, 0o666); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		if err := steps(dir); err != nil {
			return err
		}
		return os.WriteFile(stamp, nil, 0o666)
	}()
	p.done[dir] = err
	return dir, err
}

// command runs a tool of the preparation, for at most 15 minutes.
func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, firstOf(args), err, lastLines(out, 3))
	}
	return nil
}

func firstOf(args []string) string {
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			return a
		}
	}
	return ""
}

func lastLines(out []byte, n int) string {
	var keep []string
	for _, l := range bytes.Split(bytes.TrimSpace(out), []byte("\n")) {
		if t := strings.TrimSpace(string(l)); t != "" && t != "[ERROR]" {
			keep = append(keep, t)
		}
	}
	return strings.Join(keep[max(0, len(keep)-n):], " | ")
}

// goProgram builds a client of the test module, whose go.mod pins the libraries.
func goProgram(name string) func(*preparer, context.Context, row) (program, error) {
	return func(p *preparer, ctx context.Context, r row) (program, error) {
		bin := filepath.Join(p.cache, "go", name)
		if err := os.MkdirAll(filepath.Dir(bin), 0o777); err != nil {
			return program{}, err
		}
		err := command(ctx, filepath.Join(harness.Root(), "test"), nil, "go", "build", "-o", bin, "./tools/interop/clients/"+name)
		return program{command: []string{bin}}, err
	}
}

// kcat is driven by a small Go program that turns the contract into kcat's flags.

func (p *preparer) kcat(ctx context.Context, r row) (program, error) {
	if err := need("kcat"); err != nil {
		return program{}, err
	}
	return goProgram("kcat")(p, ctx, r)
}

// python makes a virtual environment from a lock file and runs one of the
// programs in clients/python.
func python(folder, script string) func(*preparer, context.Context, row) (program, error) {
	return func(p *preparer, ctx context.Context, r row) (program, error) {
		if err := need("python3"); err != nil {
			return program{}, err
		}
		dir, err := p.once(folder, []string{folder + "/requirements.txt"}, nil, func(dir string) error {
			if err := command(ctx, dir, nil, "python3", "-m", "venv", "venv"); err != nil {
				return err
			}
			return command(ctx, dir, nil, "venv/bin/pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r", "requirements.txt")
		})
		return program{
			command: []string{filepath.Join(dir, "venv", "bin", "python"), filepath.Join(p.clients, "python", script)},
			env:     []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"},
		}, err
	}
}

// The plugin that copies jars, pinned like everything else.
const mavenCopy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"

// maven copies a pom's jars into dir/lib.
func maven(ctx context.Context, dir string, args ...string) error {
	args = append([]string{"-B", "-q", "-f", filepath.Join(dir, "pom.xml"), mavenCopy, "-DoutputDirectory=" + filepath.Join(dir, "lib")}, args...)
	return command(ctx, dir, nil, "mvn", args...)
}

// java compiles the one Java client against one version of kafka-clients.
func (p *preparer) java(ctx context.Context, r row) (program, error) {
	if err := need("java", "javac", "mvn"); err != nil {
		return program{}, err
	}
	dir, err := p.once("java-"+r.version, []string{"java/pom.xml", "java/Client.java", "java/Login.java", "java/TokenLogin.java", "java/Admin.java", "java/Security.java"}, []string{r.version}, func(dir string) error {
		if err := maven(ctx, dir, "-Dkafka.version="+r.version); err != nil {
			return err
		}
		sources := []string{"Client.java", "Login.java"}
		if r.version[0] != '0' {
			sources = append(sources, "TokenLogin.java")
		}
		if r.version[0] >= '3' {
			sources = append(sources, "Admin.java", "Security.java")
		}
		return command(ctx, dir, nil, "javac", append([]string{"-nowarn", "-cp", "lib/*", "-d", "classes"}, sources...)...)
	})
	// A small heap and the client compiler alone: such a program lives for seconds.
	return program{command: []string{"java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-cp", filepath.Join(dir, "classes") + ":" + filepath.Join(dir, "lib", "*"), "Client"}}, err
}

func (p *preparer) kafkajs(ctx context.Context, r row) (program, error) {
	if err := need("node", "npm"); err != nil {
		return program{}, err
	}
	dir, err := p.once("kafkajs", []string{"kafkajs/package.json", "kafkajs/package-lock.json"}, nil, func(dir string) error {
		return command(ctx, dir, nil, "npm", "ci", "--loglevel=error")
	})
	return p.node(dir, "kafkajs/client.js", err)
}

// confluentjs takes the package's prebuilt binary where it can be had; otherwise
// the librdkafka that the package carries is built, with this machine's libraries.
func (p *preparer) confluentjs(ctx context.Context, r row) (program, error) {
	if err := need("node", "npm", "make", "g++"); err != nil {
		return program{}, err
	}
	// Built without libzstd it is built again once that is there.
	_, noZstd := os.Stat("/usr/include/zstd.h")
	dir, err := p.once("confluentjs", []string{"confluentjs/package.json", "confluentjs/package-lock.json"}, []string{fmt.Sprint("zstd ", noZstd == nil)}, func(dir string) error {
		if err := command(ctx, dir, nil, "npm", "ci", "--ignore-scripts", "--loglevel=error"); err != nil {
			return err
		}
		inside := filepath.Join(dir, "node_modules", "@confluentinc", "kafka-javascript")
		install := filepath.Join(dir, "node_modules", ".bin", "node-pre-gyp")
		if err := command(ctx, inside, nil, install, "install"); err == nil {
			return nil
		}
		return command(ctx, inside, append(nodeHeaders(ctx), "CKJS_LINKING=dynamic"), install, "install", "--build-from-source")
	})
	return p.node(dir, "confluentjs/client.js", err)
}

// nodeHeaders tells node-gyp to use the headers that came with Node.js, where they
// did, instead of fetching them.
func nodeHeaders(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "node", "-p", "process.execPath").Output()
	if err != nil {
		return nil
	}
	prefix := filepath.Dir(filepath.Dir(strings.TrimSpace(string(out))))
	if _, err := os.Stat(filepath.Join(prefix, "include", "node", "node.h")); err != nil {
		return nil
	}
	return []string{"npm_config_nodedir=" + prefix}
}

// node runs a script that finds its modules in the cache folder.
func (p *preparer) node(dir, script string, err error) (program, error) {
	return program{
		command: []string{"node", filepath.Join(p.clients, script)},
		env:     []string{"NODE_PATH=" + filepath.Join(dir, "node_modules"), "KAFKAJS_NO_PARTITIONER_WARNING=1"},
	}, err
}

// trimaranjs builds Trimaran's own JavaScript client as a package and runs it in a runtime: the
// machine's Node.js, or Deno or Bun of the lock file.
func trimaranjs(runtime string) func(*preparer, context.Context, row) (program, error) {
	return func(p *preparer, ctx context.Context, r row) (program, error) {
		if err := need("node", "npm"); err != nil {
			return program{}, err
		}
		source := filepath.Join(harness.Root(), "clients", "js")
		files := map[string]string{}
		for _, pattern := range []string{"package*.json", "tsconfig*.json", ".npmrc", "build.mjs", "src/*.ts"} {
			found, err := filepath.Glob(filepath.Join(source, pattern))
			if err != nil {
				return program{}, err
			}
			for _, file := range found {
				files[strings.TrimPrefix(file, source+"/")] = file
			}
		}
		built, err := p.onceIn("trimaranjs", files, nil, func(dir string) error {
			if err := command(ctx, dir, nil, "npm", "ci", "--ignore-scripts", "--loglevel=error"); err != nil {
				return err
			}
			return command(ctx, dir, nil, "npm", "run", "build")
		})
		if err != nil {
			return program{}, err
		}
		commands := map[string][]string{"node": {"node"}, "deno": {"deno", "run", "--quiet", "--allow-all"}, "bun": {"bun", "run"}}
		run := commands[runtime]
		if runtime != "node" {
			// Their scripts put the programs where they are looked for.
			dir, err := p.once("jsruntimes", []string{"trimaranjs/package.json", "trimaranjs/package-lock.json"}, nil, func(dir string) error {
				return command(ctx, dir, nil, "npm", "ci", "--loglevel=error")
			})
			if err != nil {
				return program{}, err
			}
			run[0] = filepath.Join(dir, "node_modules", ".bin", runtime)
			if err := command(ctx, dir, nil, run[0], "--version"); err != nil {
				return program{}, err
			}
		}
		return program{command: append(run, filepath.Join(p.clients, "trimaranjs", "client.mjs")), env: []string{"TRIMARAN_JS=" + built}}, nil
	}
}

func (p *preparer) rust(ctx context.Context, r row) (program, error) {
	if err := need("cargo", "make", "gcc"); err != nil {
		return program{}, err
	}
	dir, err := p.once("rust", []string{"rust/Cargo.toml", "rust/Cargo.lock", "rust/src/main.rs"}, nil, func(dir string) error {
		// The compiled librdkafka outlives a change of the program.
		return command(ctx, dir, []string{"CARGO_TARGET_DIR=" + filepath.Join(p.cache, "rust-target")}, "sh", "-c",
			`cargo build --locked --release -q && cp "$CARGO_TARGET_DIR/release/interop" interop`)
	})
	return program{command: []string{filepath.Join(dir, "interop")}}, err
}
