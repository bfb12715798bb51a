package commands

import (
	"context"
	"errors"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// faultyS3 is a proxy before an S3 server that fails where it is told to. What becomes of a request
// follows from a seed, the request's method and address, and how often it was made: not from what
// others ask meanwhile.
type faultyS3 struct {
	faults atomic.Bool
	down   atomic.Bool  // it answers 503 alone
	slow   atomic.Int64 // ns before each answer with an object
	url    string

	// unconditional: it says of conditional writes to keys that begin with this that it does not
	// know them; "": it lets them through.
	unconditional string
	refused       atomic.Int64 // of these

	seed  uint64
	stage atomic.Pointer[stage]

	mu      sync.Mutex // guards what follows
	asked   map[string]*asked
	counted map[fault]int
}

// asked is what is known of requests that are the same.
type asked struct {
	rnd    *rand.Rand
	failed int // the last ones in a row
}

// fault is what may become of a request.
type fault string

const (
	answers503  fault = "503 before it is done"
	lateError   fault = "503 after it is done"
	hangsUp     fault = "the connection is cut before it is done"
	lateHangUp  fault = "the connection is cut after it is done"
	cutUpload   fault = "the connection is cut in the middle of an upload"
	cutAnswer   fault = "the answer's body ends too early"
	takesTime   fault = "slow"
	goesThrough fault = ""
)

// mostFailures is how often the same request fails in a row. It is tried seven times.
const mostFailures = 3

// stage is a request at which the proxy waits, before it is done or after.
type stage struct {
	is      func(r *http.Request) bool
	after   bool
	reached chan struct{} // closed when it is there
	over    chan struct{} // closed when it need not wait any more: its connection is cut
}

type (
	faultKey struct{} // of a request's context: its fault
	stageKey struct{} // of a request's context: the stage that waits for its answer
)

var errCut = errors.New("cut by the test")

// newFaultyS3 is a server in this process, which ignores the conditions of writes.
func newFaultyS3(t *testing.T, seed uint64) *faultyS3 {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("backups"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	return newFaultyProxy(t, server.URL, seed)
}

// newFaultyProxy is a proxy before a server that has the bucket "backups".
func newFaultyProxy(t *testing.T, server string, seed uint64) *faultyS3 {
	t.Helper()
	to, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	f := &faultyS3{seed: seed, asked: map[string]*asked{}, counted: map[fault]int{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			ctx := r.Request.Context()
			if s, _ := ctx.Value(stageKey{}).(*stage); s != nil {
				s.wait(ctx)
				return errCut
			}
			switch what, _ := ctx.Value(faultKey{}).(fault); what {
			case lateError:
				r.StatusCode, r.ContentLength = http.StatusServiceUnavailable, -1
				r.Header = http.Header{}
				_ = r.Body.Close()
				r.Body = io.NopCloser(strings.NewReader(slowDown))
			case lateHangUp:
				return errCut
			case cutAnswer:
				// What the header says comes from the server.
				r.Body = struct {
					io.Reader
					io.Closer
				}{io.LimitReader(r.Body, max(r.ContentLength, 2)/2), r.Body}
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/segments/") {
			f.pause(r.Context(), time.Duration(f.slow.Load()))
		}
		if f.down.Load() {
			http.Error(w, slowDown, http.StatusServiceUnavailable)
			return
		}
		if f.unconditional != "" && r.Header.Get("If-None-Match") != "" && strings.HasPrefix(r.URL.Path, "/backups/"+f.unconditional) {
			f.refused.Add(1)
			http.Error(w, `<Error><Code>NotImplemented</Code></Error>`, http.StatusNotImplemented)
			return
		}
		if s := f.stage.Load(); s != nil && s.is(r) && f.stage.CompareAndSwap(s, nil) {
			if !s.after {
				s.wait(r.Context())
				panic(http.ErrAbortHandler)
			}
			proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), stageKey{}, s)))
			return
		}
		what, rnd := f.next(r)
		switch what {
		case answers503:
			http.Error(w, slowDown, http.StatusServiceUnavailable)
			return
		case hangsUp:
			panic(http.ErrAbortHandler)
		case takesTime:
			f.pause(r.Context(), time.Duration(rnd)*time.Millisecond)
		case cutUpload:
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(r.Body, r.ContentLength/2), failing{}), r.Body}
		}
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), faultKey{}, what)))
	}))
	t.Cleanup(front.Close)
	f.url = front.URL
	return f
}

const slowDown = `<Error><Code>SlowDown</Code></Error>`

// failing is the end of a body that is cut.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

func (s *stage) wait(ctx context.Context) {
	close(s.reached)
	select {
	case <-s.over:
	case <-ctx.Done():
	}
}

func (f *faultyS3) pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// next says what becomes of a request, and gives a number below 300 with it.
func (f *faultyS3) next(r *http.Request) (what fault, number int) {
	if !f.faults.Load() {
		return goesThrough, 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := r.Method + " " + r.URL.String()
	a := f.asked[key]
	if a == nil {
		sum := fnv.New64a()
		_, _ = io.WriteString(sum, key)
		a = &asked{rnd: rand.New(rand.NewPCG(f.seed, sum.Sum64()))}
		f.asked[key] = a
	}
	all := []fault{answers503, lateError, hangsUp, lateHangUp, cutAnswer, takesTime, goesThrough, goesThrough, goesThrough, goesThrough}
	if r.Method == http.MethodPut && r.ContentLength > 1 {
		all[4] = cutUpload // its answer has no body
	}
	number = a.rnd.IntN(300)
	what = all[a.rnd.IntN(len(all))]
	if what == goesThrough || what == takesTime {
		a.failed = 0
	} else if a.failed++; a.failed > mostFailures {
		what, a.failed = goesThrough, 0
	}
	if what != goesThrough {
		f.counted[what]++
	}
	return what, number
}

// failed gives how often what has become of requests.
func (f *faultyS3) failed() map[fault]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.counted)
}

// failures is how many requests have failed.
func (f *faultyS3) failures() (n int) {
	for what, times := range f.failed() {
		if what != takesTime {
			n += times
		}
	}
	return n
}

// stop makes the proxy wait at the next request that is one, before it is done or after.
func (f *faultyS3) stop(after bool, is func(r *http.Request) bool) *stage {
	s := &stage{is: is, after: after, reached: make(chan struct{}), over: make(chan struct{})}
	f.stage.Store(s)
	return s
}

// store is the address of a place in it.
func (f *faultyS3) store(prefix string) string {
	return "s3://backups/" + prefix + "?region=us-east-1&endpoint=" + url.QueryEscape(f.url)
}
