package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

const (
	backoffLeast = 50 * time.Millisecond
	backoffMost  = 2 * time.Second
	// shortLived is a connection that ended too soon for the next one to follow at
	// once.
	shortLived = time.Second
)

// backoff is how long to wait after so many failures in a row: from 50 ms up to
// 2 s, half of it by chance, so that many do not come at once.
func backoff(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	d := min(backoffLeast<<min(failures-1, 10), backoffMost)
	return d/2 + rand.N(d/2+1)
}

// gateways is what the proxy knows of its gateways. One watcher each holds a
// connection of its own that carries nothing but pings, and tries again when it is
// gone. So one connection finds out what all must know, clients never wait for
// a gateway that is known to be dead, and pings do not grow with clients.
type gateways struct {
	logger *slog.Logger
	dialer shim.Dialer // of watchers
	// eachTLS gives what the next connection takes: certificates and CAs follow their files.
	eachTLS func() *tls.Config
	// A watcher's connection is silent for half of timeout before it asks whether
	// the gateway takes another; the answer has the other half.
	timeout time.Duration
	list    []*gateway

	mu      sync.Mutex // guards this and what gateway says
	changed chan struct{}
}

type gateway struct {
	all  *gateways
	url  string
	name string // the URL without a password

	// Guarded by all.mu.
	up       bool   // sessions may be sent there
	serves   bool   // as it says of itself; one that says nothing does
	told     string // what the log said last: "" that it is up, else the kind of loss
	why      error  // why no connection could be made, nil while one can
	sessions int
	age      int             // how often it was reached
	dead     context.Context // ends when the gateway is taken for dead; another when it is back
	die      context.CancelCauseFunc
	// closed while it does not serve and another one does; replaced afterwards
	away chan struct{}

	kick chan struct{} // something went wrong with it: look again
}

func newGateways(urls []string, dialer shim.Dialer, eachTLS func() *tls.Config, timeout time.Duration, logger *slog.Logger) *gateways {
	gs := &gateways{logger: logger, dialer: dialer, eachTLS: eachTLS, timeout: timeout, changed: make(chan struct{})}
	gs.dialer.KeepAlive = timeout / 2
	for _, url := range urls {
		g := &gateway{all: gs, url: url, name: redacted(url), kick: make(chan struct{}, 1), serves: true, away: make(chan struct{})}
		g.dead, g.die = context.WithCancelCause(context.Background())
		gs.list = append(gs.list, g)
	}
	return gs
}

func (gs *gateways) names() []string {
	var names []string
	for _, g := range gs.list {
		names = append(names, g.name)
	}
	return names
}

// watch runs the watchers until ctx ends.
func (gs *gateways) watch(ctx context.Context) {
	var all sync.WaitGroup
	for _, g := range gs.list {
		all.Go(func() { g.watch(ctx) })
	}
	all.Wait()
}

func (g *gateway) watch(ctx context.Context) {
	failures := 0
	verify := false // the last connection fell silent
	for ctx.Err() == nil {
		within := g.all.dialer.HandshakeTimeout
		if verify {
			within = min(within, g.all.timeout/2)
		}
		select {
		case <-g.kick: // it is looked at now
		default:
		}
		attempt, cancel := context.WithTimeout(ctx, within)
		dialer := g.all.dialer
		dialer.TLSConfig = g.all.eachTLS()
		var told atomic.Bool // a gateway that says so does in the handshake, and then in pings
		dialer.Serving = func(serves bool) {
			told.Store(true)
			g.says(serves)
		}
		conn, err := dialer.DialURL(attempt, g.url)
		cancel()
		if err == nil && !told.Load() {
			g.says(true)
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			g.lost(err, verify)
			verify = false
			failures++
			pause(ctx, backoff(failures))
			continue
		}
		began := time.Now()
		g.reached()
		err = g.hold(ctx, conn)
		verify = errors.Is(err, shim.ErrSilent)
		g.suspect()
		if time.Since(began) >= shortLived {
			failures = 0
		} else if failures++; failures > 1 {
			pause(ctx, backoff(failures-1))
		}
	}
}

// hold keeps a watcher's connection until it ends, or somebody has a reason to
// doubt the gateway.
func (g *gateway) hold(ctx context.Context, conn *shim.Conn) error {
	ended := make(chan error, 1)
	go func() {
		_, err := conn.ReadMessage()
		if err == nil {
			err = errors.New("an answer that nobody asked for")
		}
		ended <- err
	}()
	defer conn.Close()
	select {
	case err := <-ended:
		return err
	case <-g.kick:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// reached: a connection was made.
func (g *gateway) reached() {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if g.dead.Err() != nil {
		g.dead, g.die = context.WithCancelCause(context.Background())
	}
	if g.told != "" {
		g.all.logger.Info("gateway reached", "gateway", g.name)
	}
	g.up, g.told, g.why = true, "", nil
	g.age++
	g.all.tell()
}

// lost: no connection could be made. silent says that the gateway had stopped
// giving signs of life before; then nobody waits for it any longer.
func (g *gateway) lost(err error, silent bool) {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if kind := kindOf(err); kind != g.told {
		g.all.logger.Warn("gateway cannot be reached", "gateway", g.name, "kind", kind, "error", err)
		g.told = kind
	}
	g.up, g.why = false, err
	if silent {
		g.die(fmt.Errorf("%w; and then: %w", shim.ErrSilent, err))
	}
	g.all.tell()
}

// kindOf says in a word why no connection could be made. The same kind again and
// again is one event in the log.
func kindOf(err error) string {
	var certificate *tls.CertificateVerificationError
	var alert tls.AlertError
	var notTLS tls.RecordHeaderError
	switch {
	case errors.Is(err, websocket.ErrBadHandshake):
		return "refused"
	case errors.As(err, &certificate):
		return "certificate"
	case errors.As(err, &alert), errors.As(err, &notTLS):
		return "tls"
	}
	return "network"
}

// says: the gateway tells whether it serves.
func (g *gateway) says(serves bool) {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if g.serves == serves {
		return
	}
	g.serves = serves
	if serves {
		g.all.logger.Info("gateway serves", "gateway", g.name)
	} else {
		g.all.logger.Warn("gateway does not serve", "gateway", g.name)
	}
	g.all.tell()
}

// suspect keeps sessions from being sent there until a connection is made.
func (g *gateway) suspect() {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	g.up = false
	g.all.tell()
}

// doubt makes the watcher look again. Who calls it lost a connection, or could
// not make one, to the gateway as it was at that age: many losses at once are
// one piece of news.
func (g *gateway) doubt(age int) {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if g.age != age || !g.up {
		return
	}
	g.up = false
	g.all.tell()
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

func (g *gateway) leave() {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	g.sessions--
}

// tell wakes who waits for a change, and sends sessions away from where they are not served. The
// caller holds mu.
func (gs *gateways) tell() {
	close(gs.changed)
	gs.changed = make(chan struct{})
	served := gs.servedLocked()
	for _, g := range gs.list {
		select {
		case <-g.away:
			if g.serves || !served {
				g.away = make(chan struct{})
			}
		default:
			if !g.serves && served {
				close(g.away)
			}
		}
	}
}

// ready reports whether a gateway is there that serves.
func (gs *gateways) ready() bool {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.servedLocked()
}

func (gs *gateways) servedLocked() bool {
	return slices.ContainsFunc(gs.list, func(g *gateway) bool { return g.up && g.serves })
}

// picked is a gateway at the time when it was chosen.
type picked struct {
	*gateway
	age  int
	dead context.Context
	away <-chan struct{}
}

// pick gives the gateway with the fewest sessions, by chance among equals;
// avoid only if there is no other, and one that does not serve only if none does. The session
// counts until leave. If there is none, changed tells when to look again.
func (gs *gateways) pick(avoid *gateway) (p picked, changed <-chan struct{}) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	bad := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	worse := func(a, b *gateway) int {
		return cmp.Or(bad(!a.serves)-bad(!b.serves), bad(a == avoid)-bad(b == avoid), a.sessions-b.sessions)
	}
	var best *gateway
	ties := 0
	for _, g := range gs.list {
		switch {
		case !g.up:
		case best == nil || worse(g, best) < 0:
			best, ties = g, 1
		case worse(g, best) == 0:
			if ties++; rand.IntN(ties) == 0 {
				best = g
			}
		}
	}
	if best == nil {
		return picked{}, gs.changed
	}
	best.sessions++
	return picked{best, best.age, best.dead, best.away}, nil
}

// reasons tells why gateways cannot be reached.
func (gs *gateways) reasons() error {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	var all []string
	for _, g := range gs.list {
		if g.why != nil {
			all = append(all, g.why.Error())
		}
	}
	if len(all) == 0 {
		return errors.New("they are being looked for")
	}
	return errors.New(strings.Join(all, "; "))
}

var errNoGateway = errors.New("no gateway could be reached")

// dial connects to one of the gateways, trying them until ctx ends; avoid is the
// last choice at first.
func (gs *gateways) dial(ctx context.Context, d shim.Dialer, avoid *gateway) (*upstream, error) {
	var last error
	gaveUp := func() error {
		if last == nil {
			last = gs.reasons()
		}
		return fmt.Errorf("%w: %w (%w)", errNoGateway, context.Cause(ctx), last)
	}
	for failures := 0; ; {
		g, changed := gs.pick(avoid)
		if g.gateway == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, gaveUp()
			}
		}
		attempt, cancel := context.WithTimeout(ctx, d.HandshakeTimeout)
		given := context.AfterFunc(g.dead, cancel) // others found out that it is dead
		d.TLSConfig = gs.eachTLS()
		conn, err := d.DialURL(attempt, g.url)
		given()
		cancel()
		if err == nil {
			return newUpstream(conn, g), nil
		}
		g.leave()
		if ctx.Err() != nil {
			return nil, gaveUp()
		}
		// A gateway that refuses this session may take others.
		if !errors.Is(err, websocket.ErrBadHandshake) {
			g.doubt(g.age)
		}
		last, avoid = fmt.Errorf("%s: %w", g.name, err), g.gateway
		failures++
		if errors.Is(err, shim.ErrUnauthorized) && failures >= len(gs.list) {
			return nil, gaveUp() // the ticket is not taken, and will not be
		}
		if failures >= len(gs.list) {
			pause(ctx, backoff(failures-len(gs.list)+1))
		}
	}
}

// verdict is what the end of a gateway connection means for the session.
type verdict int

const (
	lost     verdict = iota // what was under way has an unknown fate
	goodbye                 // a planned end
	promised                // a planned end, and what is not answered was not begun
	refused                 // the gateway objects to what the client sent
	moved                   // this side left, since another gateway serves
)

// verdictOf reads the gateway's last words.
func verdictOf(err error) verdict {
	if errors.Is(err, errMoved) {
		return moved
	}
	var closed *websocket.CloseError
	if !errors.As(err, &closed) {
		if errors.Is(err, io.EOF) {
			return goodbye
		}
		return lost
	}
	switch closed.Code {
	case websocket.CloseGoingAway:
		if closed.Text == shim.GoodbyeReason {
			return promised
		}
		return goodbye
	case websocket.CloseNormalClosure, websocket.CloseNoStatusReceived, websocket.CloseServiceRestart, websocket.CloseTryAgainLater:
		return goodbye
	case websocket.CloseAbnormalClosure, websocket.CloseTLSHandshake:
		return lost
	}
	// Among them: a produce with acks=0 failed, and nothing else tells the client.
	return refused
}
