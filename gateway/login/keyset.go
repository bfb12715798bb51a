package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/security/jwt"
)

// When keys are fetched.
const (
	keysEvery   = time.Hour        // and up to a tenth more, by chance
	keysAtMost  = time.Minute      // between two fetches, whatever tokens ask for
	keysTimeout = 30 * time.Second // of one fetch
	keysWait    = 2 * time.Second  // that a login waits for one
	maxKeysFile = 1 << 20          // bytes
)

// KeySet has the keys of an identity provider. They are fetched beside, when it begins, every hour
// (a file every minute), and when a token names one that is not known, then at most once a minute.
// When a fetch fails the old ones stay.
type KeySet struct {
	source string // file or URL
	client *http.Client
	logger *slog.Logger
	keys   atomic.Pointer[[]jose.JSONWebKey]

	mu      locks.Mutex[KeySet] // guards the rest
	asked   bool                // a fetch is to be
	kick    chan struct{}
	fetched chan struct{} // closed and replaced after each fetch
	last    time.Time     // when one began
}

// NewKeySet takes a file or an https URL; http only to loopback. It does not fetch yet.
func NewKeySet(source string, logger *slog.Logger) (*KeySet, error) {
	k := &KeySet{source: source, logger: logger, kick: make(chan struct{}, 1), fetched: make(chan struct{})}
	k.keys.Store(new([]jose.JSONWebKey))
	if strings.Contains(source, "://") {
		u, err := url.Parse(source)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
			return nil, errors.New("keys come from a file or an https URL; http only from this machine")
		}
		k.client = &http.Client{
			Timeout: keysTimeout,
			// No proxy of the environment's, and nobody sends it elsewhere.
			Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true, TLSHandshakeTimeout: keysTimeout},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return k, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Run fetches keys until ctx ends.
func (k *KeySet) Run(ctx context.Context) {
	failures := 0
	for {
		err := k.fetch(ctx)
		next := keysEvery + rand.N(keysEvery/10)
		if failures++; err == nil {
			failures = 0
		} else if ctx.Err() == nil {
			k.logger.Warn("the identity provider's keys cannot be had; those that are known stay", "source", k.source, "error", err)
			next = keysAtMost
		}
		if k.client == nil {
			next = keysAtMost // a file costs nothing
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-k.kick:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// Known gives the keys of that id; all for "".
func (k *KeySet) Known(id string) []jose.JSONWebKey {
	all := *k.keys.Load()
	if id == "" {
		return all
	}
	var found []jose.JSONWebKey
	for _, key := range all {
		if key.KeyID == id {
			found = append(found, key)
		}
	}
	return found
}

// Refresh has the keys fetched unless they were within a minute, and waits for it at most two
// seconds. It reports whether they were.
func (k *KeySet) Refresh(ctx context.Context) bool {
	k.mu.Lock()
	fetched := k.fetched
	if !k.asked {
		if time.Since(k.last) < keysAtMost {
			k.mu.Unlock()
			return false
		}
		k.asked = true
		select {
		case k.kick <- struct{}{}:
		default:
		}
	}
	k.mu.Unlock()
	timer := time.NewTimer(keysWait)
	defer timer.Stop()
	select {
	case <-fetched:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (k *KeySet) fetch(ctx context.Context) error {
	k.mu.Lock()
	k.last, k.asked = time.Now(), true
	select {
	case <-k.kick: // this is the fetch that was asked for
	default:
	}
	k.mu.Unlock()
	text, err := k.read(ctx)
	var keys []jose.JSONWebKey
	if err == nil {
		keys, err = jwt.ParseKeys(text)
	}
	if err == nil {
		k.keys.Store(&keys)
	}
	k.mu.Lock()
	k.asked = false
	close(k.fetched)
	k.fetched = make(chan struct{})
	k.mu.Unlock()
	return err
}

func (k *KeySet) read(ctx context.Context) ([]byte, error) {
	if k.client == nil {
		f, err := os.Open(k.source)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return bounded(f)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.source, nil)
	if err != nil {
		return nil, err
	}
	response, err := k.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	return bounded(response.Body)
}

func bounded(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeysFile+1))
	if err == nil && len(text) > maxKeysFile {
		err = fmt.Errorf("more than %d bytes", maxKeysFile)
	}
	return text, err
}
