package console

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func get(method, path string, header map[string]string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	if path == "/" {
		ServePage(w, r, []string{"ws://n2:9092"})
	} else {
		ServeFile(w, r)
	}
	return w.Result()
}

// TestEveryFileOfThePageIsThere follows the page's links, and the modules' to others.
func TestEveryFileOfThePageIsThere(t *testing.T) {
	page, _ := io.ReadAll(get("GET", "/", nil).Body)
	open := regexp.MustCompile(`"(/console/[^"]+)"`).FindAllStringSubmatch(string(page), -1)
	if len(open) != 3 {
		t.Fatalf("the page links to %q", open)
	}
	seen := map[string]bool{}
	for len(open) > 0 {
		path := open[0][1]
		open = open[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		plain := get("GET", path, nil)
		body, _ := io.ReadAll(plain.Body)
		if plain.StatusCode != 200 || len(body) == 0 || plain.Header.Get("Content-Encoding") != "" {
			t.Fatalf("%s: %v", path, plain)
		}
		if got := plain.Header.Get("Cache-Control"); !strings.Contains(got, "immutable") {
			t.Errorf("%s: Cache-Control %q", path, got)
		}
		zipped := get("GET", path, map[string]string{"Accept-Encoding": "br, gzip"})
		z, err := gzip.NewReader(zipped.Body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if again, err := io.ReadAll(z); err != nil || !bytes.Equal(again, body) {
			t.Errorf("%s: compressed it is something else: %v", path, err)
		}
		for _, m := range regexp.MustCompile(`(?:from|import\()"\./([^"]+)"`).FindAllStringSubmatch(string(body), -1) {
			open = append(open, []string{"", Prefix + m[1]})
		}
	}
	if len(seen) != len(files())-1 {
		t.Errorf("%d files are linked, %d are embedded", len(seen), len(files())-1)
	}
}

// TestOnlyFilesThatAreThere holds that a path is a file's name and nothing else.
func TestOnlyFilesThatAreThere(t *testing.T) {
	for _, path := range []string{"/console/", "/console/index.html", "/console/nothing.js", "/console/../console.go", "/console//", "/console/dist/index.html", "/console/%2e%2e/console.go"} {
		if resp := get("GET", path, nil); resp.StatusCode != 404 {
			t.Errorf("%s is answered with %d", path, resp.StatusCode)
		}
	}
}

func TestThePagesHeaders(t *testing.T) {
	resp := get("GET", "/", nil)
	policy := resp.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "connect-src 'self' ws://n2:9092;", "require-trusted-types-for 'script'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	tag := resp.Header.Get("ETag")
	if resp.Header.Get("Cache-Control") != "no-cache" || tag == "" {
		t.Errorf("headers %v", resp.Header)
	}
	again := get("GET", "/", map[string]string{"If-None-Match": tag})
	if body, _ := io.ReadAll(again.Body); again.StatusCode != 304 || len(body) > 0 || again.Header.Get("Content-Security-Policy") != policy {
		t.Errorf("asked again: %v", again)
	}
	head := get("HEAD", "/", nil)
	if body, _ := io.ReadAll(head.Body); head.StatusCode != 200 || len(body) > 0 || head.Header.Get("Content-Security-Policy") != policy {
		t.Errorf("HEAD: %v", head)
	}
	page, _ := io.ReadAll(resp.Body)
	if bytes.Contains(page, []byte("<style")) || bytes.Contains(page, []byte(" style=")) || regexp.MustCompile(`<script[^>]*>[^<]`).Match(page) {
		t.Error("the page has scripts or styles in it, which its policy does not allow")
	}
}

func TestWhoWantsHTML(t *testing.T) {
	for accept, want := range map[string]bool{
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": true,
		"*/*": false, "": false, "application/json": false, "text/plain, text/html;q=0.1": true, "text/htmlx": false, ";;;": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		if Wanted(r) != want {
			t.Errorf("%q: %v", accept, !want)
		}
	}
	for header, want := range map[string]bool{"gzip": true, "br, GZIP ;q=0.5": true, "gzip;q=0": false, "": false, "gzipped": false, "gzip;q=0.000": false} {
		if takesGzip(header) != want {
			t.Errorf("%q: %v", header, !want)
		}
	}
}
