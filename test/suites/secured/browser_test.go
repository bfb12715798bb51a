package secured

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/trimaran-io/trimaran/test/harness"
)

// browser is a headless Chromium, spoken to by the DevTools protocol.
type browser struct {
	conn *websocket.Conn
	next int
}

var errNoChromium = errors.New("there is no Chromium here: no page of a real browser is tried")

// newBrowser starts Chromium, for which every name under example is this machine.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		harness.Need(t, errNoChromium)
	}
	dir, err := os.MkdirTemp("", "trimaran-test-browser-")
	must(t, err)
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--remote-debugging-port=0", "--user-data-dir="+dir, "--host-resolver-rules=MAP *.example 127.0.0.1", "about:blank")
	stderr, err := cmd.StderrPipe()
	must(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		must(t, harness.Eventually(10*time.Second, func() bool { return os.RemoveAll(dir) == nil }))
	})
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if _, url, ok := strings.Cut(lines.Text(), "DevTools listening on "); ok {
			conn, _, err := websocket.DefaultDialer.Dial(url, nil)
			must(t, err)
			t.Cleanup(func() { conn.Close() })
			go func() {
				for lines.Scan() { // nobody else takes what it says
				}
			}()
			return &browser{conn: conn}
		}
	}
	t.Fatalf("Chromium does not begin: %v", lines.Err())
	return nil
}

// call asks Chromium for something and reads its answer into result.
func (b *browser) call(t *testing.T, session, method string, params fields, result any) {
	t.Helper()
	b.next++
	must(t, b.conn.WriteJSON(fields{"id": b.next, "sessionId": session, "method": method, "params": params}))
	must(t, b.conn.SetReadDeadline(time.Now().Add(time.Minute)))
	for {
		var answer struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		must(t, b.conn.ReadJSON(&answer))
		switch {
		case answer.ID != b.next: // an event
		case answer.Error != nil:
			t.Fatalf("%s: %s", method, answer.Error)
		default:
			must(t, json.Unmarshal(answer.Result, result))
			return
		}
	}
}

// page opens a page and gives what a script on it says.
func (b *browser) page(t *testing.T, context, url, script string) string {
	t.Helper()
	var target struct{ TargetID string }
	b.call(t, "", "Target.createTarget", fields{"url": url, "browserContextId": context}, &target)
	var attached struct{ SessionID string }
	b.call(t, "", "Target.attachToTarget", fields{"targetId": target.TargetID, "flatten": true}, &attached)
	defer b.call(t, "", "Target.closeTarget", fields{"targetId": target.TargetID}, &struct{}{})
	run := func(expression string) string {
		var evaluated struct {
			Result           struct{ Value any }
			ExceptionDetails any
		}
		b.call(t, attached.SessionID, "Runtime.evaluate", fields{"expression": expression, "awaitPromise": true, "returnByValue": true}, &evaluated)
		if evaluated.ExceptionDetails != nil {
			t.Logf("%s: %v", url, evaluated.ExceptionDetails)
		}
		return fmt.Sprint(evaluated.Result.Value)
	}
	must(t, harness.Eventually(patience, func() bool { return run("document.readyState+' '+document.title") == "complete page" }))
	return run(script)
}

// asks is a script that opens a WebSocket, asks which versions there are, and says what came of it.
const asks = `new Promise(done => {
	const ws = new WebSocket(%q);
	ws.binaryType = 'arraybuffer';
	ws.onopen = () => ws.send(new Uint8Array([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 255, 255]));
	ws.onmessage = () => { done('answered'); ws.close() };
	ws.onclose = () => done('closed');
})`

// framed runs a script in a frame whose origin is none.
const framed = `new Promise(done => {
	addEventListener('message', e => done(e.data));
	const frame = document.createElement('iframe');
	frame.sandbox = 'allow-scripts';
	frame.srcdoc = '<script>' + %q + '.then(said => parent.postMessage(origin + " " + said, "*"))<' + '/script>';
	document.body.append(frame);
})`

// TestPagesOfOthers: with a user's password remembered by the browser, pages of another port, of
// another site and in a sandboxed frame cannot speak to a node; one of an origin that is allowed
// can. All of them can speak to a server that does not look where they come from, and the password
// goes along.
func TestPagesOfOthers(t *testing.T) {
	t.Parallel()
	b := newBrowser(t)
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<title>page</title><body></body>")
	}))
	defer pages.Close()
	_, port, err := net.SplitHostPort(pages.Listener.Addr().String())
	must(t, err)
	allowed := "http://app.example:" + port
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true, NodeArgs: append([]string{"--allow-origin", allowed}, locked...)})
	n := c.Node(1)
	user(t, c, "alice")
	_, err = n.Terminate(patience)
	must(t, err)
	_, nodePort, err := net.SplitHostPort(n.Addr())
	must(t, err)
	ws := "ws://localhost:" + nodePort + "/"

	tries := func(context string) map[string]string {
		said := map[string]string{}
		for who, page := range map[string]string{"another port": "http://localhost:" + port, "another site": "http://evil.example:" + port, "allowed": allowed} {
			said[who] = b.page(t, context, page+"/", fmt.Sprintf(asks, ws))
		}
		said["a sandboxed frame"] = b.page(t, context, allowed+"/", fmt.Sprintf(framed, fmt.Sprintf(asks, ws)))
		return said
	}
	var remembering, fresh struct{ BrowserContextID string }
	b.call(t, "", "Target.createBrowserContext", fields{}, &remembering)
	b.call(t, "", "Target.createBrowserContext", fields{}, &fresh)

	// Where the node will be is somebody first who asks for the password as browsers know it.
	careless := serveCareless(t, n.Addr())
	b.page(t, remembering.BrowserContextID, "http://alice:"+careless.password+"@localhost:"+nodePort+"/", "1")
	for who, said := range tries(remembering.BrowserContextID) {
		if !strings.HasSuffix(said, "answered") {
			t.Errorf("%s cannot speak to who does not look: %s", who, said)
		}
	}
	// Chromium sends it along from pages of the same host, whatever their port.
	if careless.withPassword() == 0 {
		t.Error("the password came with no WebSocket: this browser does not do what is tried here")
	}
	careless.stop()

	must(t, n.Restart())
	for how, context := range map[string]string{"with a password that is remembered": remembering.BrowserContextID, "without": fresh.BrowserContextID} {
		for who, said := range tries(context) {
			if answered := strings.HasSuffix(said, "answered"); answered != (who == "allowed") {
				t.Errorf("%s, %s: %s", who, how, said)
			}
		}
	}
}

// careless asks for a password as browsers know it, and takes WebSockets from everywhere.
type careless struct {
	server   *http.Server
	password string
	done     chan struct{}

	mu   sync.Mutex
	with int
}

func serveCareless(t *testing.T, addr string) *careless {
	t.Helper()
	s := &careless{password: "secret", done: make(chan struct{})}
	l, err := net.Listen("tcp", addr)
	must(t, err)
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	s.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if websocket.IsWebSocketUpgrade(r) {
			if password == s.password {
				s.mu.Lock()
				s.with++
				s.mu.Unlock()
			}
			if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
				_ = ws.WriteMessage(websocket.BinaryMessage, []byte("x"))
				_, _, _ = ws.ReadMessage()
				_ = ws.Close()
			}
			return
		}
		if password != s.password {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<title>page</title><body></body>")
	})}
	go func() { defer close(s.done); _ = s.server.Serve(l) }()
	t.Cleanup(s.stop)
	return s
}

func (s *careless) withPassword() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.with
}

func (s *careless) stop() {
	_ = s.server.Close()
	<-s.done
}
