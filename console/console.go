// Package console is the page that a browser gets from a node: a Kafka client over WebSocket, and
// nothing on the node's side but these files.
//
// You are here: below gateway/listen, which decides who may ask for anything at all and adds to the
// page's headers which nodes it may connect to. The package knows files and their headers; what is
// in them is made from src (TypeScript and Preact, `make console`) and committed in dist, so that
// building a node needs Go alone.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed dist
var dist embed.FS

// Prefix is what the paths of all files but the page itself begin with.
const Prefix = "/console/"

// Page is the file that is shown at "/".
const Page = "index.html"

// file is one of dist, with its headers.
type file struct {
	content, zipped []byte // zipped is nil where it would not be shorter
	kind, tag       string
	hashed          bool // its name says what is in it
}

// files are read and compressed when the first one is asked for: most nodes never are.
var files = sync.OnceValue(func() map[string]*file {
	all := map[string]*file{}
	entries, err := dist.ReadDir("dist")
	if err != nil {
		panic(err) // embedded
	}
	for _, e := range entries {
		content, err := dist.ReadFile("dist/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		all[e.Name()] = &file{
			content: content, zipped: zip(content), kind: kindOf(e.Name()),
			tag: hex.EncodeToString(sum[:16]), hashed: e.Name() != Page,
		}
	}
	return all
})

// kindOf does not ask the machine, whose table may differ.
func kindOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "application/octet-stream"
}

func zip(content []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	_, _ = w.Write(content)
	_ = w.Close()
	if out.Len() >= len(content) {
		return nil
	}
	return out.Bytes()
}

// policy is the page's Content-Security-Policy: scripts, styles and pictures of its own, no code
// from text, no form, no frame around it, and connections to nodes of its cluster.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'%s; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// ServePage answers a GET or HEAD of "/" from who wants HTML. connect are the origins, such as ws://n1:9092, that the
// page may connect to beside its own; they have to be fit for a header.
func ServePage(w http.ResponseWriter, r *http.Request, connect []string) {
	more := ""
	for _, origin := range connect {
		more += " " + origin
	}
	h := w.Header()
	h.Set("Content-Security-Policy", fmt.Sprintf(policy, more))
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	serve(w, r, files()[Page])
}

// ServeFile answers a GET or HEAD of a path that begins with Prefix. There are the files of dist
// and nothing else.
func ServeFile(w http.ResponseWriter, r *http.Request) {
	f, ok := files()[strings.TrimPrefix(r.URL.Path, Prefix)]
	if !ok || !f.hashed {
		http.NotFound(w, r)
		return
	}
	serve(w, r, f)
}

func serve(w http.ResponseWriter, r *http.Request, f *file) {
	h := w.Header()
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	if f.hashed {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("ETag", strconv.Quote(f.tag))
	h.Add("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == strconv.Quote(f.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.kind)
	content := f.content
	if f.zipped != nil && takesGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		content = f.zipped
	}
	h.Set("Content-Length", strconv.Itoa(len(content)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(content)
	}
}

func takesGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, parameters, _ := strings.Cut(part, ";")
		q := strings.ReplaceAll(parameters, " ", "")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			return q != "q=0" && !strings.HasPrefix(q, "q=0.0")
		}
	}
	return false
}

// Wanted reports whether a request for "/" comes from somebody who reads HTML: browsers say so,
// curl and health checks do not.
func Wanted(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		if kind, _, err := mime.ParseMediaType(part); err == nil && kind == "text/html" {
			return true
		}
	}
	return false
}
