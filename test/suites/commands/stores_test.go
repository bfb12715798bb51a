package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// storeServer is an S3 server that others have made, with the bucket "backups".
type storeServer struct {
	url string
	// keys gives the keys that begin with a prefix, not by way of what is tested.
	keys func(t *testing.T, prefix string) []string
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve starts a server on a port of its own; it ends with the test.
func serve(t *testing.T, name string, env []string, program string, args func(address, port string) []string) (address string) {
	t.Helper()
	port, err := harness.FreePort()
	must(t, err)
	address = harness.Loopback(port)
	p := &harness.Process{Name: name, Path: program, Args: args(address, fmt.Sprint(port)), Env: env, Log: filepath.Join(t.TempDir(), name+".log")}
	must(t, p.Start())
	t.Cleanup(func() {
		_ = p.Kill9()
		if text, err := os.ReadFile(p.Log); err == nil && t.Failed() {
			t.Logf("%s: …%s", name, text[max(0, len(text)-2000):])
		}
	})
	must(t, harness.WaitTCP(address, time.Minute))
	return address
}

// motoVersion and versityVersion are what .ci/run installs.
const (
	motoVersion    = "5.2.5"
	versityVersion = "1.8.0"
)

// moto is the S3 server of the Python package of that name. TRIMARAN_PYTHON names the interpreter
// that has it (python3 by default).
func moto(t *testing.T) storeServer {
	t.Helper()
	python := os.Getenv("TRIMARAN_PYTHON")
	if python == "" {
		python = "python3"
	}
	out, err := exec.Command(python, "-c", "import moto.server, flask, flask_cors; print(moto.__version__)").CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil {
		err = fmt.Errorf("moto's server is not there for %s (pip install -r test/suites/commands/testdata/moto/requirements.txt): %s", python, text[strings.LastIndexByte(text, '\n')+1:])
	} else if text != motoVersion {
		err = fmt.Errorf("%s has moto %s, want %s", python, text, motoVersion)
	}
	harness.Need(t, err)
	address := serve(t, "moto", nil, python, func(_, port string) []string { return []string{"-m", "moto.server", "-H", "127.0.0.1", "-p", port} })
	server := "http://" + address
	create, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server+"/backups", nil)
	must(t, err)
	answer, err := http.DefaultClient.Do(create)
	must(t, err)
	_ = answer.Body.Close()
	return storeServer{url: server, keys: func(t *testing.T, prefix string) (keys []string) {
		t.Helper()
		// It asks nobody who they are. A list has up to 1000 keys, which is more than there are.
		text, status, err := harness.Get(server + "/backups?list-type=2&prefix=" + url.QueryEscape(prefix))
		var list struct {
			IsTruncated bool
			Contents    []struct{ Key string }
		}
		if err := errors.Join(err, xml.Unmarshal([]byte(text), &list)); err != nil || status != http.StatusOK || list.IsTruncated {
			t.Fatalf("%d, %v: %s", status, err, text)
		}
		for _, o := range list.Contents {
			keys = append(keys, o.Key)
		}
		return keys
	}}
}

// versity is the S3 server in front of a folder by Versity. It looks at signatures and sums.
func versity(t *testing.T) storeServer {
	t.Helper()
	program, err := exec.LookPath("versitygw")
	if err == nil {
		var out []byte
		if out, err = exec.Command("go", "version", "-m", program).CombinedOutput(); err == nil && !bytes.Contains(out, []byte("versitygw\tv"+versityVersion)) {
			err = fmt.Errorf("%s has another version", program)
		}
	}
	if err != nil {
		err = fmt.Errorf("%w (go install github.com/versity/versitygw/cmd/versitygw@v%s)", err, versityVersion)
	}
	harness.Need(t, err)
	dir := t.TempDir()
	root, side := filepath.Join(dir, "root"), filepath.Join(dir, "side")
	must(t, errors.Join(os.MkdirAll(filepath.Join(root, "backups"), 0o777), os.Mkdir(side, 0o777)))
	address := serve(t, "versitygw", []string{"ROOT_ACCESS_KEY=key", "ROOT_SECRET_KEY=secret"}, program, func(address, _ string) []string {
		return []string{"--port", address, "--quiet", "posix", "--sidecar", side, root}
	})
	return storeServer{url: "http://" + address, keys: func(t *testing.T, prefix string) (keys []string) {
		t.Helper()
		bucket := filepath.Join(root, "backups")
		must(t, filepath.WalkDir(bucket, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it is deleted meanwhile
			}
			if err == nil && !d.IsDir() && strings.HasPrefix(path, bucket+"/"+prefix) {
				keys = append(keys, strings.TrimPrefix(path, bucket+"/"))
			}
			return err
		}))
		return keys
	}}
}

// Backups and tiers on S3 servers that others have made, behind a proxy that fails: backups while
// clients write and commit, nodes that die, commands that are killed at each of their steps. Then
// nothing is in the store that is not named, and what is restored is what was lost.
//
// One server does conditional writes. Of the other one's the proxy refuses those of tiers, as an
// older server does. One that ignores them is in TestBackupOfWhatIsLost.
func TestStoresOfOthers(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) storeServer{"moto": moto, "versitygw": versity} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t)
			s3 := newFaultyProxy(t, server.url, 16)
			if name == "versitygw" {
				s3.unconditional = "tier/"
			}
			onStore(t, server, s3)
			if (s3.refused.Load() > 0) != (s3.unconditional != "") {
				t.Errorf("%d conditional writes were refused", s3.refused.Load())
			}
			counted := s3.failed()
			for _, what := range []fault{answers503, lateError, hangsUp, lateHangUp, cutUpload, cutAnswer, takesTime} {
				if counted[what] == 0 {
					t.Errorf("this has never happened: %s", what)
				}
			}
			t.Logf("%v", counted)
		})
	}
}

func onStore(t *testing.T, server storeServer, s3 *faultyS3) {
	bin := program(t, "trimaran")
	env := []string{"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret"}
	nodes := func(tier string) *harness.Cluster {
		return harness.New(t, harness.Options{NoShim: true, Env: env, NodeArgs: []string{
			"--tier-to", s3.store(tier), "--tier-cache-bytes", "16MiB", "--log-segment-bytes", "262144", "--log-retention-check-interval", "1s",
			// Who asks where a topic ends would create it.
			"--auto-create-topics=false",
		}})
	}
	commands := func(c *harness.Cluster) command {
		shell := cli(c)
		shell.env = append(append(shell.env, env...), "TRIMARAN_BROKERS="+strings.Join(c.Addrs(), ","))
		return shell
	}
	source := nodes("tier/one")
	from := commands(source)
	loaded(t, source, 9_000)
	want, committed := chains(t, source, kgo.ReadUncommitted()), chains(t, source, kgo.ReadCommitted())
	batches := batchChains(t, source, "big", "ledger")
	live := startLive(t, source)

	s3.faults.Store(true)
	tiered(t, source, from, bin, server, s3)

	// A backup while clients write, and a node dies.
	place := s3.store("one")
	killed := make(chan error, 1)
	go func() { killed <- source.Node(2).Kill9() }()
	type created struct {
		ID              string
		Bytes, Uploaded int64
	}
	create := func() (c created) {
		t.Helper()
		must(t, json.Unmarshal([]byte(from.ok(t, bin, "backup", "create", "--to", place, "--json")), &c))
		return c
	}
	first := create()
	must(t, <-killed)
	must(t, source.Node(2).Restart())
	if first.Bytes < 9_000_000 {
		t.Errorf("%+v", first)
	}
	s3.faults.Store(false)
	for _, step := range []struct {
		what  string
		after bool
		is    func(r *http.Request) bool
	}{
		{"an object is to be stored", false, puts("/one/segments/")},
		{"an object is stored", true, puts("/one/segments/")},
		{"objects are listed", true, func(r *http.Request) bool { return strings.HasPrefix(r.URL.Query().Get("prefix"), "one/segments/") }},
		{"the manifest is to be stored", false, puts("/one/backups/")},
		{"the manifest is stored", true, puts("/one/backups/")},
	} {
		live.goesOn(t)
		from.killedAt(t, s3.stop(step.after, step.is), step.what, bin, "backup", "create", "--to", place)
	}
	if r := from.run(t, bin, "backup", "verify", "--from", place, "--orphans", "--grace", "0s"); r.code != 1 || !strings.Contains(r.out, "segments/") {
		t.Errorf("what backups have left that were killed: code %d\n%s%s", r.code, r.out, r.err)
	}
	from.ok(t, bin, "backup", "verify", "--from", place, "--orphans") // it is young
	if n := strings.Count(from.ok(t, bin, "backup", "list", "--from", place), " topics "); n > 2 {
		t.Errorf("%d backups", n)
	}
	live.stop(t)
	s3.faults.Store(true)
	last := create()
	// What is stored by an attempt that seemed to fail does not count.
	if last.Uploaded > last.Bytes/10 {
		t.Errorf("not only what was new is stored: %+v", last)
	}
	from.ok(t, bin, "backup", "verify", "--from", place, "--all")

	// All that nobody names goes, by commands that are killed, too.
	s3.faults.Store(false)
	from.killedAt(t, s3.stop(true, deletes("/one/segments/")), "an object is deleted", bin, "backup", "prune", "--from", place, "--grace", "0s")
	s3.faults.Store(true)
	from.ok(t, bin, "backup", "prune", "--from", place, "--grace", "0s")
	var orphans struct{ Orphans []struct{ Key string } }
	must(t, json.Unmarshal([]byte(from.ok(t, bin, "backup", "verify", "--from", place, "--orphans", "--grace", "0s", "--json")), &orphans))
	if len(orphans.Orphans) != 0 {
		t.Errorf("%+v", orphans)
	}
	then := from.restoredAs(t, bin, place, first.ID, "live=then")
	contains(t, "restore of the first one", then, "1 topic")
	for name, chain := range batchChains(t, source, "then") {
		if err := beginsWith(live.batches[strings.Replace(name, "then", "live", 1)], chain); err != nil {
			t.Errorf("%s in the first backup: %v", name, err)
		}
	}
	from.ok(t, bin, "topic", "delete", "then")

	// All is lost, and brought back by commands that are killed.
	want["live"], batches = live.group, mergedChains(batches, live.batches)
	for _, n := range source.Nodes {
		must(t, n.Kill9())
	}
	target := nodes("tier/two")
	to := commands(target)
	restore := []string{"backup", "restore", "--from", place, "--parallel", "1"}
	s3.faults.Store(false)
	for _, nth := range []int64{1, 4} {
		var seen atomic.Int64
		to.killedAt(t, s3.stop(true, func(r *http.Request) bool {
			return r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/backups/one/segments/") && seen.Add(1) == nth
		}), fmt.Sprintf("object %d is read", nth), append([]string{bin}, restore...)...)
	}
	s3.faults.Store(true)
	must(t, target.Node(3).Kill9())
	contains(t, "restore", to.ok(t, bin, restore...), "offsets of 2 groups")
	must(t, target.Node(3).Restart())
	contains(t, "compare", to.ok(t, bin, "backup", "compare", "--from", place), "is what the cluster has")
	got := chains(t, target, kgo.ReadUncommitted())
	got["live"] = groupOf(t, target, "live-readers")
	if !sameChains(got, want) {
		t.Errorf("it was\n%v\nand is\n%v", want, got)
	}
	if got := chains(t, target, kgo.ReadCommitted()); !sameChains(got, committed) {
		t.Errorf("what is committed was\n%v\nand is\n%v", committed, got)
	}
	restored := batchChains(t, target, "big", "ledger", "live")
	for name, chain := range batches {
		// What ends a transaction that was open comes behind.
		if err := beginsWith(restored[name], chain); err != nil || !strings.HasPrefix(name, "ledger") && len(restored[name]) != len(chain) {
			t.Errorf("%s: %v, %d batches of %d", name, err, len(restored[name]), len(chain))
		}
	}
	if len(restored) != len(batches) {
		t.Errorf("%d partitions, wanted %d", len(restored), len(batches))
	}
	inTier(t, target, to, bin, server, "tier/two/")
	to.ok(t, bin, "cluster", "verify", "big")

	// What one backup has alone goes with it.
	to.killedAt(t, s3.stop(true, deletes("/one/backups/")), "a manifest is deleted", bin, "backup", "prune", "--from", place, "--keep", "1", "--grace", "0s")
	to.ok(t, bin, "backup", "prune", "--from", place, "--keep", "1", "--grace", "0s")
	to.ok(t, bin, "backup", "verify", "--from", place, "--orphans", "--grace", "0s")
	var verified []struct{ Objects int }
	must(t, json.Unmarshal([]byte(to.ok(t, bin, "backup", "verify", "--from", place, "--all", "--json")), &verified))
	if there := server.keys(t, "one/segments/"); len(verified) != 1 || verified[0].Objects != len(there) {
		t.Errorf("%v, and %d objects are there", verified, len(there))
	}
}

// tiered lets old records go to the tier while the leader of a partition dies that has just stored
// a segment and not named it. They are what they were, and nothing else is in the tier.
func tiered(t *testing.T, c *harness.Cluster, shell command, bin string, server storeServer, s3 *faultyS3) {
	t.Helper()
	want, batches := chains(t, c, kgo.ReadUncommitted()), batchChains(t, c, "big")
	index := s3.stop(true, func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/backups/tier/") && strings.Contains(r.URL.Path, "/0/") && strings.HasSuffix(r.URL.Path, ".index")
	})
	shell.ok(t, bin, "topic", "alter", "big", "--config", "remote.storage.enable=true", "--config", "local.retention.bytes=262144", "--config", "retention.ms=-1")
	select {
	case <-index.reached:
	case <-time.After(time.Minute):
		t.Fatalf("nothing goes to the tier\n%s", c.Logs(20))
	}
	leader, err := c.Leader("big", 0, time.Minute)
	must(t, err)
	must(t, leader.Kill9())
	close(index.over)
	left := len(segmentsIn(server.keys(t, "tier/one/tiers/"), "/0/"))
	must(t, leader.Restart())
	inTier(t, c, shell, bin, server, "tier/one/")
	if got := chains(t, c, kgo.ReadUncommitted()); !sameChains(got, want) {
		t.Errorf("it was\n%v\nand is\n%v", want, got)
	}
	for name, chain := range batchChains(t, c, "big") {
		if err := beginsWith(chain, batches[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	orphans, err := c.Metrics("trimaran_tier_orphans_total", "trimaran_tier_fetched_bytes_total")
	must(t, err)
	if left != 1 || orphans["trimaran_tier_orphans_total"] == 0 || orphans["trimaran_tier_fetched_bytes_total"] == 0 {
		t.Errorf("%d segments were left by the leader that died; %v", left, orphans)
	}
}

// segmentsIn gives the segments of a tier that keys belong to whose names have a text in them.
func segmentsIn(keys []string, with string) (segments []string) {
	for _, key := range keys {
		if strings.HasSuffix(key, ".list") {
			continue // of what is named, no segment
		}
		dir, file, _ := strings.Cut(key, "tiers/")
		if segment, _, ok := strings.Cut(file, "."); ok && strings.Contains(file, with) {
			segments = append(segments, dir+segment)
		}
	}
	slices.Sort(segments)
	return slices.Compact(segments)
}

// inTier waits until all of a topic is in the tier that should be, replicas keep little of it, and
// nothing is there that the log does not name.
func inTier(t *testing.T, c *harness.Cluster, shell command, bin string, server storeServer, place string) {
	t.Helper()
	named, there := 0, []string{}
	if err := harness.Eventually(time.Minute, func() bool {
		_, waiting, local, partitions := tierOfTopic(t, shell, bin, "big")
		if partitions != 3 || waiting != 0 || local < 1000 {
			return false
		}
		named, there = tierSegments(t, shell, bin), segmentsIn(server.keys(t, place), "")
		return named == len(there)
	}); err != nil {
		largest, waiting, local, partitions := tierOfTopic(t, shell, bin, "big")
		t.Fatalf("%d partitions have a tier, %d bytes wait, replicas have %d bytes, from %d on; %d segments are named, and there is\n%s\n%s", partitions, waiting, largest, local,
			named, strings.Join(there, "\n"), c.Logs(30))
	}
}

// tierSegments gives how many segments the logs name, those among them that are to be deleted; -1
// where that is not known.
func tierSegments(t *testing.T, shell command, bin string) (segments int) {
	t.Helper()
	var status struct {
		Topics []struct {
			Partitions []struct {
				Tier *struct {
					Segments int
					ToDelete int `json:"to_delete"`
				}
			}
		}
	}
	if r := shell.run(t, bin, "cluster", "status", "--json"); r.code != 0 || json.Unmarshal([]byte(r.out), &status) != nil {
		return -1
	}
	for _, topic := range status.Topics {
		for _, p := range topic.Partitions {
			if p.Tier != nil {
				segments += p.Tier.Segments + p.Tier.ToDelete
			}
		}
	}
	return segments
}

func puts(path string) func(r *http.Request) bool {
	return func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/backups"+path)
	}
}

func deletes(path string) func(r *http.Request) bool {
	return func(r *http.Request) bool {
		return r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, "/backups"+path)
	}
}

// killedAt runs a command that is killed when it has come to a stage.
func (c command) killedAt(t *testing.T, at *stage, what string, line ...string) {
	t.Helper()
	defer close(at.over)
	tool := exec.Command(line[0], line[1:]...)
	tool.Env = append(os.Environ(), c.env...)
	var said bytes.Buffer
	tool.Stdout, tool.Stderr = &said, &said
	must(t, tool.Start())
	ended := make(chan error, 1)
	go func() { ended <- tool.Wait() }()
	select {
	case <-at.reached:
	case err := <-ended:
		t.Fatalf("%s: it ended (%v) before this: %s\n%s", strings.Join(line[1:], " "), err, what, said.String())
	case <-time.After(patience):
		t.Errorf("%s: it does not come to this: %s", strings.Join(line[1:], " "), what)
	}
	_ = tool.Process.Kill()
	<-ended
}

// restoredAs restores topics of a backup under other names.
func (c command) restoredAs(t *testing.T, bin, place, id, topic string) string {
	t.Helper()
	return c.ok(t, bin, "backup", "restore", "--from", place, "--backup", id, "--topic", topic)
}

func mergedChains(all ...map[string][]link) map[string][]link {
	out := map[string][]link{}
	for _, one := range all {
		for name, chain := range one {
			out[name] = chain
		}
	}
	return out
}

// groupOf is what a group has committed.
func groupOf(t *testing.T, c *harness.Cluster, group string) string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...))
	must(t, err)
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(t.Context(), group)
	must(t, err)
	return fmt.Sprint(offsets.Sorted())
}

// live is a client that writes a record after the other into the two partitions of a topic, and
// commits what it has read of them.
type live struct {
	c        *harness.Cluster
	written  atomic.Int64
	stopping atomic.Bool // after the record that is being written
	ended    chan error
	// What was there in the end.
	batches map[string][]link
	group   string
}

func startLive(t *testing.T, c *harness.Cluster) *live {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &live{c: c, ended: make(chan error, 1)}
	must(t, c.CreateTopic(t.Context(), "live", 2, 3))
	go func() { l.ended <- l.run(ctx) }()
	t.Cleanup(cancel)
	l.goesOn(t)
	return l
}

func (l *live) run(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.c.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	value := bytes.Repeat([]byte("x"), 500)
	for i := int64(0); !l.stopping.Load(); i++ {
		r := &kgo.Record{Topic: "live", Partition: int32(i % 2), Key: fmt.Append(nil, i), Value: value}
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			return err
		}
		if i%10 == 0 {
			offsets := kadm.Offsets{}
			offsets.Add(kadm.Offset{Topic: "live", Partition: r.Partition, At: r.Offset + 1, LeaderEpoch: -1})
			// A group's coordinator may be the node that has just died.
			_, _ = adm.CommitOffsets(ctx, "live-readers", offsets)
		}
		l.written.Store(i)
	}
	return nil
}

// goesOn waits until more is written.
func (l *live) goesOn(t *testing.T) {
	t.Helper()
	before := l.written.Load()
	if err := harness.Eventually(time.Minute, func() bool { return l.written.Load() > before+20 }); err != nil {
		t.Fatalf("nothing is written: %v", err)
	}
}

// stop ends it and looks at what is there.
func (l *live) stop(t *testing.T) {
	t.Helper()
	l.stopping.Store(true)
	must(t, <-l.ended)
	l.batches, l.group = batchChains(t, l.c, "live"), groupOf(t, l.c, "live-readers")
	if len(l.batches) != 2 || !strings.Contains(l.group, "live") {
		t.Errorf("%d partitions, group %s", len(l.batches), l.group)
	}
}
