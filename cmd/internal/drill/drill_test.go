package drill

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs nodes that are shells: they serve at once and end with their input.
func start(t *testing.T, scripts map[string]string) *Nodes {
	t.Helper()
	var nodes []Node
	for _, id := range []string{"n1", "n2", "n3"} {
		if _, ok := scripts[id]; ok {
			nodes = append(nodes, Node{ID: id, Address: "127.0.0.1:1"})
		}
	}
	n := New(nodes, func(id string) *exec.Cmd { return exec.Command("sh", "-c", scripts[id]) }, func(line string) { t.Log(line) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		n.Stop(ctx)
		for _, node := range n.List() {
			if node.State != Down {
				t.Errorf("%+v after the end", node)
			}
		}
	})
	return n
}

const serves = "echo ready; cat >/dev/null"

// await waits until a node is in a state.
func (n *Nodes) await(t *testing.T, id string, want State) Node {
	t.Helper()
	return n.awaits(t, func(node Node) bool { return node.ID == id && node.State == want })
}

func (n *Nodes) awaits(t *testing.T, is func(Node) bool) Node {
	t.Helper()
	late := time.After(time.Minute)
	for {
		n.mu.Lock()
		turned := n.turned
		n.mu.Unlock()
		for _, node := range n.List() {
			if is(node) {
				return node
			}
		}
		select {
		case <-turned:
		case <-late:
			t.Fatalf("not within 10 s: %+v", n.List())
		}
	}
}

func (n *Nodes) do(t *testing.T, op Op, id string) {
	t.Helper()
	if err := n.Do(op, id); err != nil {
		t.Fatal(err)
	}
}

func TestNodesAreKilledPausedAndRestarted(t *testing.T) {
	n := start(t, map[string]string{"n1": serves, "n2": serves})
	if err := n.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := n.await(t, "n2", Running)
	n.do(t, Pause, "n2")
	n.await(t, "n2", Paused)
	for _, op := range []Op{Pause, Restart, "drop table"} {
		if err := n.Do(op, "n2"); !errors.Is(err, ErrNot) {
			t.Errorf("%s of a paused node: %v", op, err)
		}
	}
	n.do(t, Resume, "n2")
	n.do(t, Restart, "n2")
	n.awaits(t, func(node Node) bool { return node.ID == "n2" && node.State == Running && node.PID != first.PID })
	n.do(t, Pause, "n2")
	n.do(t, Kill, "n2")
	if down := n.await(t, "n2", Down); down.Why != "killed" || down.PID != 0 {
		t.Errorf("%+v", down)
	}
	for _, op := range []Op{Kill, Pause, Resume} {
		if err := n.Do(op, "n2"); !errors.Is(err, ErrNot) {
			t.Errorf("%s of a node that is down: %v", op, err)
		}
	}
	n.do(t, Restart, "n2")
	n.await(t, "n2", Running)
	if err := n.Do(Kill, "n9"); !errors.Is(err, ErrNot) {
		t.Errorf("a node that is not there: %v", err)
	}
	// By somebody else.
	p, err := os.FindProcess(n.await(t, "n1", Running).PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if down := n.await(t, "n1", Down); !strings.Contains(down.Why, "signal: killed") {
		t.Errorf("%+v", down)
	}
	select {
	case err := <-n.Failed():
		t.Errorf("a signal is no failure: %v", err)
	default:
	}
	n.do(t, Pause, "n2") // and the cleanup ends it nevertheless
}

func TestANodeThatFailsOrHasLeft(t *testing.T) {
	n := start(t, map[string]string{"n1": serves, "n2": "exit 3"})
	if err := n.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if down := n.await(t, "n2", Down); down.Why != ErrLeft.Error() {
		t.Errorf("%+v", down)
	}
	if err := n.Do(Restart, "n2"); !errors.Is(err, ErrNot) {
		t.Errorf("a node that has left is started: %v", err)
	}
	if err := start(t, map[string]string{"n1": "exit 3", "n2": "exit 3"}).StartAll(t.Context()); !errors.Is(err, ErrLeft) {
		t.Errorf("all have left: %v", err)
	}
	if err := start(t, map[string]string{"n1": "cat >/dev/null", "n2": "exit 1"}).StartAll(t.Context()); err == nil || !strings.Contains(err.Error(), "node n2") {
		t.Errorf("a node failed, and StartAll gives %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := start(t, map[string]string{"n1": "cat >/dev/null"}).StartAll(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("StartAll gives %v", err)
	}
	n.do(t, Kill, "n1")
	n.await(t, "n1", Down)
}

// TestOnlyThePageItself may do anything, and nobody by another name may even look.
func TestOnlyThePageItself(t *testing.T) {
	n := start(t, map[string]string{"n1": serves})
	if err := n.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	const host = "127.0.0.1:9392"
	h := Handler(n, []string{host, "localhost:9392"})
	ask := func(method, path, body string, header map[string]string) *http.Response {
		r := httptest.NewRequest(method, "http://"+host+path, strings.NewReader(body))
		for k, v := range header {
			if r.Header.Set(k, v); k == "Host" {
				r.Host = v
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	kill := `{"op":"kill","node":"n1"}`
	own := map[string]string{"Origin": "http://" + host, "Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
	but := func(key, value string) map[string]string {
		other := map[string]string{key: value}
		for k, v := range own {
			if k != key {
				other[k] = v
			}
		}
		return other
	}
	for name, header := range map[string]map[string]string{
		"no header":              {},
		"another origin":         but("Origin", "http://127.0.0.1:9092"),
		"another name":           but("Origin", "http://localhost:9392"),
		"https":                  but("Origin", "https://"+host),
		"no origin":              but("Origin", ""),
		"null":                   but("Origin", "null"),
		"a form":                 but("Content-Type", "application/x-www-form-urlencoded"),
		"text":                   but("Content-Type", "text/plain"),
		"another site":           but("Sec-Fetch-Site", "cross-site"),
		"another port":           but("Sec-Fetch-Site", "same-site"),
		"typed in":               but("Sec-Fetch-Site", "none"),
		"a name that leads here": but("Host", "evil.example.org:9392"),
		"no port":                but("Host", "127.0.0.1"),
	} {
		if resp := ask("POST", nodesPath, kill, header); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	for _, path := range []string{"/", Path, nodesPath, "/console/nothing.js"} {
		if resp := ask("GET", path, "", map[string]string{"Host": "evil.example.org"}); resp.StatusCode != http.StatusForbidden {
			t.Errorf("another host, %s: %s", path, resp.Status)
		}
		if resp := ask("GET", path, "", nil); resp.Header.Get("Access-Control-Allow-Origin") != "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, resp.Header)
		}
	}
	if resp := ask("OPTIONS", nodesPath, "", but("Access-Control-Request-Method", "POST")); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a preflight is answered with %s", resp.Status)
	}
	for body, want := range map[string]int{
		"": 400, "{}": 409, "[]": 400, `{"op":"kill","node":"n2"}`: 409, `{"op":"rm","node":"n1"}`: 409, `{"op":"kill","node":"n1","x":1}`: 400,
		`{"op":"` + strings.Repeat("x", 2*mostAsked) + `"}`: 400, `{"op":"resume","node":"n1"}`: 409,
	} {
		if resp := ask("POST", nodesPath, body, own); resp.StatusCode != want {
			t.Errorf("%.40q: %s; want %d", body, resp.Status, want)
		}
	}
	if node := n.List()[0]; node.State != Running {
		t.Fatalf("%+v", node)
	}
	page := ask("GET", Path, "", nil)
	if policy := page.Header.Get("Content-Security-Policy"); page.StatusCode != 200 || !strings.Contains(policy, "connect-src 'self' ws://127.0.0.1:1;") {
		t.Errorf("the page: %s, %q", page.Status, policy)
	}
	if resp := ask("GET", "/", "", nil); resp.Header.Get("Location") != Path {
		t.Errorf("/ leads to %v", resp.Header)
	}
	resp := ask("POST", nodesPath, kill, own)
	text, _ := io.ReadAll(resp.Body)
	var all []Node
	if err := json.Unmarshal(text, &all); err != nil || resp.StatusCode != 200 || len(all) != 1 {
		t.Fatalf("%s: %s", resp.Status, text)
	}
	n.await(t, "n1", Down)
}
