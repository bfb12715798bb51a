package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
)

const browserAccepts = "text/html,application/xhtml+xml,*/*;q=0.8"

// fetch asks for a path as a browser does.
func (g *gatewayOf) fetch(method, path, accept string) (*http.Response, string) {
	g.t.Helper()
	r, err := http.NewRequest(method, "http://"+g.addr+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp, string(body)
}

// TestBrowsersGetTheConsole and nobody else does, nor anybody where it is switched off.
func TestBrowsersGetTheConsole(t *testing.T) {
	f := newFake(t, "events")
	f.gateways = map[fsm.NodeID]string{"n1": "127.0.0.1:1001", "n2": "n2.example.org:1002", "n3": "[2001:db8::1]:1003"}
	for _, on := range []bool{true, false} {
		g := serve(t, f, func(c *Config) { c.Console = on })
		resp, body := g.fetch("GET", "/", browserAccepts)
		isPage := strings.HasPrefix(body, "<!doctype html>")
		if isPage != on {
			t.Errorf("console %v: a browser gets %q", on, body)
		}
		policy := resp.Header.Get("Content-Security-Policy")
		if want := "connect-src 'self' ws://" + g.addr + " ws://127.0.0.1:1001 ws://n2.example.org:1002;"; on && !sameSources(policy, want) {
			t.Errorf("the policy is %q; want %q", policy, want)
		}
		if _, body := g.fetch("GET", "/", "*/*"); !strings.HasPrefix(body, "Trimaran test") || strings.Contains(body, "console") != on {
			t.Errorf("console %v: curl gets %q", on, body)
		}
		for path, want := range map[string]int{"/console/": 404, "/console": 404, "/console/index.html": 404, "/console/../": 404, "/index.html": 404} {
			if resp, _ := g.fetch("GET", path, browserAccepts); resp.StatusCode != want && resp.StatusCode != 301 && resp.StatusCode != 307 {
				t.Errorf("console %v: %s is answered with %d", on, path, resp.StatusCode)
			}
		}
		script := "/console/nothing.js"
		if _, rest, ok := strings.Cut(body, `src="`); ok {
			script, _, _ = strings.Cut(rest, `"`)
		}
		for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405} {
			if !on {
				want = 404
			}
			if resp, _ := g.fetch(method, script, "*/*"); resp.StatusCode != want {
				t.Errorf("console %v: %s %s is answered with %d; want %d", on, method, script, resp.StatusCode, want)
			}
		}
		if resp, _ := g.fetch("POST", "/", browserAccepts); resp.StatusCode != 405 {
			t.Errorf("console %v: POST / is answered with %d", on, resp.StatusCode)
		}
	}
}

// sameSources compares a directive with one of a policy, whatever the order of its sources.
func sameSources(policy, want string) bool {
	for directive := range strings.SplitSeq(policy, ";") {
		got := strings.Fields(directive)
		if len(got) == 0 || got[0] != "connect-src" {
			continue
		}
		wanted := strings.Fields(strings.TrimSuffix(want, ";"))
		if len(got) != len(wanted) {
			return false
		}
		for _, w := range wanted {
			if !strings.Contains(directive+" ", " "+w+" ") {
				return false
			}
		}
		return true
	}
	return false
}

// TestAConsoleGoesOnAtAnotherNode: its origin is that of the node that it came from, which may be
// gone. Nobody else's page may connect.
func TestAConsoleGoesOnAtAnotherNode(t *testing.T) {
	for _, on := range []bool{true, false} {
		f := newFake(t, "events")
		f.gateways = map[fsm.NodeID]string{"n1": "127.0.0.1:1001", "n2": "n2.example.org:1002", "n3": "0.0.0.0:1003", "n9": "not-registered:1009"}
		g := serve(t, f, func(c *Config) { c.Console = on })
		if on {
			g.neighbours.addresses() // as it does each second
			f.mu.Lock()
			f.gateways = map[fsm.NodeID]string{} // all are away
			f.mu.Unlock()
		}
		for origin, sibling := range map[string]bool{
			"http://127.0.0.1:1001": true, "http://localhost:1001": true, "http://[::1]:1001": true, "http://n2.example.org:1002": true, "http://N2.example.org:1002": true,
			"https://127.0.0.1:1001": false, "http://127.0.0.1:1002": false, "http://n2.example.org": false, "http://n2.example.org:1003": false, "http://evil.example.org:1002": false,
			"http://0.0.0.0:1003": false, "http://127.0.0.1:1003": false, "http://not-registered:1009": false, "http://sub.localhost:1001": false, "null": false, "http://127.0.0.1:10010": false,
			"http://user@127.0.0.1:1001": false, "http://127.0.0.1:1001/x": false,
		} {
			ws, resp, err := g.dialWS(http.Header{"Origin": {origin}})
			if (err == nil) != (sibling && on) {
				t.Errorf("console %v: origin %s: %v, %v", on, origin, resp, err)
			}
			if err == nil {
				ws.Close()
			}
		}
	}
}

// TestASecuredClusterHandsOutThePage to anybody: nothing is in it that is not in the program. No
// answer makes a browser ask for a password.
func TestASecuredClusterHandsOutThePage(t *testing.T) {
	g := serveSecured(t, func(c *Config) { c.Console = true })
	resp, body := g.fetch("GET", "/", browserAccepts)
	if resp.StatusCode != 200 || !strings.HasPrefix(body, "<!doctype html>") || resp.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("a stranger gets %v", resp)
	}
}

// TestNobodyWritesThePolicy: whatever a request calls the node, and whatever address another node
// says it has, the page's policy lists origins of hosts and nothing else.
func TestNobodyWritesThePolicy(t *testing.T) {
	f := newFake(t, "events")
	g := serve(t, f, func(c *Config) { c.Console = true })
	ask := func(host string) {
		t.Helper()
		r, err := http.NewRequest("GET", "http://"+g.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("Accept", browserAccepts)
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return // not even sent
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusForbidden {
			return
		}
		policy := resp.Header.Values("Content-Security-Policy")
		if len(policy) != 1 || resp.Header.Get("X-Evil") != "" || strings.Count(policy[0], ";") != 9 {
			t.Fatalf("host %q: %d, %v", host, resp.StatusCode, resp.Header)
		}
		if strings.ContainsAny(policy[0], "*,\\") || strings.Contains(policy[0], "unsafe") || strings.Contains(policy[0], "evil") {
			t.Errorf("host %q: %s", host, policy[0])
		}
	}
	for _, address := range []string{
		"*:1001", "evil;script-src *:1002", "evil *:1003", "evil,*:1004", "'unsafe-inline':1005", "https://evil:1006", "evil\r\nX-Evil: 1:1007", "*.evil:1008", "evil:*", "evil:70000", "evil@x:1", "evil/x:1", "",
	} {
		f.mu.Lock()
		f.gateways = map[fsm.NodeID]string{"n1": address}
		f.mu.Unlock()
		ask(g.addr)
	}
	for _, host := range []string{"*.localhost", "a;b.localhost", "a b.localhost", "a,b.localhost", "'self'.localhost", "localhost:0", "localhost:99999", "localhost:*", "", "x.localhost:1", "[::1]", "LOCALHOST.:80"} {
		ask(host)
	}
}
