package drill

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/console"
)

// Path is where the page is. By it the page knows that it may do this.
const Path = "/drill"

// nodesPath answers with the nodes, and takes what is to be done to one.
const nodesPath = Path + "/nodes"

// mostAsked bounds a request's body.
const mostAsked = 1 << 10

// asked is the body of a request.
type asked struct {
	Op   Op     `json:"op"`
	Node string `json:"node"`
}

// Handler serves the console, with the nodes that can be drilled. hosts are the names, with their
// port, that a browser may call it by: a page of another name that leads here is somebody else's
// (DNS rebinding). A request to do something has to come from the page itself.
func Handler(nodes *Nodes, hosts []string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, Path, http.StatusSeeOther)
	})
	mux.HandleFunc("GET "+Path, func(w http.ResponseWriter, r *http.Request) {
		var connect []string
		for _, node := range nodes.List() {
			connect = append(connect, "ws://"+node.Address)
		}
		console.ServePage(w, r, connect)
	})
	mux.HandleFunc("GET "+console.Prefix, console.ServeFile)
	mux.HandleFunc("GET "+nodesPath, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, nodes)
	})
	mux.HandleFunc("POST "+nodesPath, func(w http.ResponseWriter, r *http.Request) {
		// A form and a plain text of another page would come without being asked for.
		if r.Header.Get("Origin") != "http://"+r.Host || r.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "Only this page may do that.", http.StatusForbidden)
			return
		}
		var a asked
		d := json.NewDecoder(io.LimitReader(r.Body, mostAsked))
		d.DisallowUnknownFields()
		if err := d.Decode(&a); err != nil {
			http.Error(w, "want an operation and a node", http.StatusBadRequest)
			return
		}
		switch err := nodes.Do(a.Op, a.Node); {
		case errors.Is(err, ErrNot):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			answer(w, nodes)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		known := slices.ContainsFunc(hosts, func(host string) bool { return strings.EqualFold(r.Host, host) })
		// Browsers say where a request comes from. A page of another port is another's.
		site := r.Header.Get("Sec-Fetch-Site")
		if own := site == "" || site == "same-origin"; !known || r.URL.Path == nodesPath && !own {
			http.Error(w, "This is not for pages of others.", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, nodes *Nodes) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(nodes.List())
}
