package login

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// How many logins may fail: at once, and again a second.
var (
	ofPair = bound{10, 0.5} // one user from one address
	ofHost = bound{100, 10} // all from one address: a shim, or many behind one translation
	ofUser = bound{100, 10} // one user from all addresses that it has not logged in from
)

type bound struct {
	burst  int
	refill rate.Limit
}

const (
	// maxRemembered bounds each kind of what is remembered.
	maxRemembered = 10_000
	// trusted is how long an address that a user has logged in from is not held back by what
	// others do to that user's name.
	trusted = time.Hour
)

type pair struct{ host, user string }

// Network is what is counted as one address: of IPv6 the 64 bits that a client cannot choose
// (RFC 4291, section 2.5.1). What is no address stays what it is.
func Network(host string) string {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// limiter slows guessing down: who has failed too often is not checked at all for a while, and told
// what who is wrong is told.
type limiter struct {
	mu    locks.Mutex[limiter] // guards the rest; nothing is taken under it
	pairs map[pair]*rate.Limiter
	hosts map[string]*rate.Limiter
	users map[string]*rate.Limiter
	good  map[pair]time.Time
}

func newLimiter() *limiter {
	return &limiter{
		pairs: map[pair]*rate.Limiter{}, hosts: map[string]*rate.Limiter{},
		users: map[string]*rate.Limiter{}, good: map[pair]time.Time{},
	}
}

// allows reports whether a login may be tried. user is "" where it is not known before.
func (l *limiter) allows(host, user string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	host = Network(host)
	if left(l.hosts, host, now) < 1 {
		return false
	}
	if user == "" {
		return true
	}
	p := pair{host, user}
	if left(l.pairs, p, now) < 1 {
		return false
	}
	return now.Sub(l.good[p]) < trusted || left(l.users, user, now) >= 1
}

// failed counts a login that was wrong.
func (l *limiter) failed(host, user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	host = Network(host)
	count(l.hosts, host, ofHost, now)
	if user != "" {
		count(l.pairs, pair{host, user}, ofPair, now)
		count(l.users, user, ofUser, now)
	}
}

// succeeded notes that the user is known at that address.
func (l *limiter) succeeded(host, user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, now := pair{Network(host), user}, time.Now()
	if _, known := l.good[p]; !known && len(l.good) >= maxRemembered {
		for p, at := range l.good {
			if now.Sub(at) >= trusted {
				delete(l.good, p)
			}
		}
		for p := range l.good {
			if len(l.good) < maxRemembered*9/10 {
				break
			}
			delete(l.good, p)
		}
	}
	l.good[p] = now
}

// left is how many may fail now; who is not known may fail.
func left[K comparable](of map[K]*rate.Limiter, key K, now time.Time) float64 {
	if one, ok := of[key]; ok {
		return one.TokensAt(now)
	}
	return 1
}

func count[K comparable](of map[K]*rate.Limiter, key K, b bound, now time.Time) {
	one, ok := of[key]
	if !ok {
		if len(of) >= maxRemembered {
			forget(of, b, now)
		}
		one = rate.NewLimiter(b.refill, b.burst)
		of[key] = one
	}
	one.AllowN(now, 1)
}

// forget makes room: who has not failed lately is as good as new, and if that is nobody, some are
// taken by chance.
func forget[K comparable](of map[K]*rate.Limiter, b bound, now time.Time) {
	for key, one := range of {
		if one.TokensAt(now) >= float64(b.burst) {
			delete(of, key)
		}
	}
	for key := range of {
		if len(of) < maxRemembered*9/10 {
			return
		}
		delete(of, key)
	}
}
