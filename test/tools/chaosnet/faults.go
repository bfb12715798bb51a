package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/hostnet"
)

// A fault begins, lasts, and ends. It says what it does to whom.
type fault struct {
	what string
	end  func() error
}

// kind is one kind of fault.
type kind struct {
	name  string
	least time.Duration // how long it lasts
	most  time.Duration
	begin func(w *world) (fault, error)
}

func kinds() []kind {
	const s = time.Second
	return []kind{
		{"cut-node", 3 * s, 12 * s, cutNode},
		{"cut-link", 3 * s, 12 * s, cutLink},
		{"one-way", 3 * s, 12 * s, oneWay},
		{"port", 3 * s, 12 * s, cutPort},
		{"loss", 4 * s, 10 * s, loss},
		{"delay", 4 * s, 10 * s, delay},
		{"reset", 2 * s, 6 * s, resets},
		{"kill", 1 * s, 8 * s, func(w *world) (fault, error) { return killSome(w, 1) }},
		{"kill-two", 1 * s, 5 * s, func(w *world) (fault, error) { return killSome(w, 2) }},
		{"kill-all", 1 * s, 3 * s, func(w *world) (fault, error) { return killSome(w, len(w.list())) }},
		{"stop", 1 * s, 10 * s, func(w *world) (fault, error) { return stopSome(w, 1) }},
		{"stop-all", 1 * s, 8 * s, func(w *world) (fault, error) { return stopSome(w, len(w.list())) }},
		{"power", 1 * s, 6 * s, func(w *world) (fault, error) { return losePower(w, 1) }},
		{"power-all", 1 * s, 3 * s, func(w *world) (fault, error) { return losePower(w, len(w.list())) }},
		{"disk-full", 4 * s, 10 * s, diskFull},
		{"disk-hang", 2 * s, 8 * s, diskHang},
		{"disk-fail", 2 * s, 6 * s, diskFail},
		{"disk-read-only", 2 * s, 6 * s, diskReadOnly},
		{"join-and-leave", 0, 0, joinAndLeave},
		{"replace", 0, 0, replace},
	}
}

func kindNames() (names []string) {
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// disturb rolls faults until the time is over. Now and then a fault of the network
// lies over another one.
func (w *world) disturb(ctx context.Context, whole time.Duration) error {
	all := kinds()
	if w.o.only != "" {
		wanted := strings.Split(w.o.only, ",")
		all = slices.DeleteFunc(all, func(k kind) bool { return !slices.Contains(wanted, k.name) })
		if len(all) != len(wanted) {
			return fmt.Errorf("of %q only %d are kinds of faults", w.o.only, len(all))
		}
	}
	end := time.Now().Add(whole)
	for round := 0; time.Now().Before(end) && ctx.Err() == nil; round++ {
		// Each kind once, in an order that the dice give, and so on.
		if round%len(all) == 0 {
			w.dice.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		k := all[round%len(all)]
		over := make(chan error, 1)
		over <- nil
		if w.dice.IntN(3) == 0 {
			overlay := []kind{{begin: cutLink}, {begin: oneWay}, {begin: loss}, {begin: delay}}[w.dice.IntN(4)]
			f, err := overlay.begin(w)
			if err != nil {
				return err
			}
			w.say("  beside it: %s", f.what)
			lasts := w.between(3*time.Second, 12*time.Second)
			<-over
			go func() {
				pause(ctx, lasts)
				over <- f.end()
			}()
		}
		f, err := k.begin(w)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		w.counts[k.name]++
		w.say("%s: %s", k.name, f.what)
		pause(ctx, w.between(k.least, k.most))
		if err := errors.Join(f.end(), <-over); err != nil {
			return fmt.Errorf("the end of %s: %w", k.name, err)
		}
		// A node may have ended by itself, as it has to when its disk fails.
		for _, h := range w.list() {
			if !h.proc.Running() {
				w.say("%s has ended, and is started again", h.id)
				if err := h.start(); err != nil {
					return err
				}
			}
		}
		pause(ctx, w.between(time.Second, 5*time.Second))
	}
	return nil
}

func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.dice.Int64N(int64(most-least)+1))
}

func pause(ctx context.Context, t time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(t):
	}
}

// some gives n hosts that run.
func (w *world) some(n int) []*host {
	hosts := slices.DeleteFunc(w.list(), func(h *host) bool { return !h.proc.Running() })
	w.dice.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	return hosts[:min(n, len(hosts))]
}

// two gives two different hosts.
func (w *world) two() (a, b *host) {
	hosts := w.list()
	w.dice.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	return hosts[0], hosts[1]
}

func (w *world) rules(what string, rules ...*hostnet.Rule) (fault, error) {
	end := w.net.Apply(rules...)
	return fault{what, func() error { end(); return nil }}, nil
}

var anybody netip.Addr

func cutNode(w *world) (fault, error) {
	a, _ := w.two()
	return w.rules(a.id+" is cut off from everybody", &hostnet.Rule{From: a.addr, Lose: 1}, &hostnet.Rule{To: a.addr, Lose: 1})
}

func cutLink(w *world) (fault, error) {
	a, b := w.two()
	return w.rules("no packets between "+a.id+" and "+b.id, &hostnet.Rule{From: a.addr, To: b.addr, Lose: 1}, &hostnet.Rule{From: b.addr, To: a.addr, Lose: 1})
}

func oneWay(w *world) (fault, error) {
	a, b := w.two()
	switch w.dice.IntN(3) {
	case 0:
		return w.rules("no packets from "+a.id+" to "+b.id, &hostnet.Rule{From: a.addr, To: b.addr, Lose: 1})
	case 1:
		return w.rules(a.id+" hears and is not heard", &hostnet.Rule{From: a.addr, Lose: 1})
	}
	return w.rules(a.id+" is heard and hears nothing", &hostnet.Rule{To: a.addr, Lose: 1})
}

func cutPort(w *world) (fault, error) {
	a, _ := w.two()
	port := []uint16{clientPort, peerPort, gossipPort}[w.dice.IntN(3)]
	return w.rules(fmt.Sprintf("port %d of %s is cut", port, a.id), &hostnet.Rule{From: a.addr, Port: port, Lose: 1}, &hostnet.Rule{To: a.addr, Port: port, Lose: 1})
}

func loss(w *world) (fault, error) {
	share := 0.02 + 0.28*w.dice.Float64()
	return w.rules(fmt.Sprintf("%.0f %% of all packets are lost", 100*share), &hostnet.Rule{Lose: share})
}

func delay(w *world) (fault, error) {
	least := w.between(0, 50*time.Millisecond)
	most := least + w.between(10*time.Millisecond, 200*time.Millisecond)
	a, _ := w.two()
	if w.dice.IntN(2) == 0 {
		a = &host{id: "everybody", addr: anybody}
	}
	return w.rules(fmt.Sprintf("packets to %s take %v to %v", a.id, least.Round(time.Millisecond), most.Round(time.Millisecond)), &hostnet.Rule{To: a.addr, Least: least, Most: most})
}

func resets(w *world) (fault, error) {
	a, _ := w.two()
	share := 0.01 + 0.1*w.dice.Float64()
	return w.rules(fmt.Sprintf("%.0f %% of what %s sends is answered with a reset", 100*share, a.id), &hostnet.Rule{From: a.addr, Reset: share})
}

func ids(hosts []*host) string {
	var names []string
	for _, h := range hosts {
		names = append(names, h.id)
	}
	return strings.Join(names, ", ")
}

// each does something to several hosts, as much at once as can be.
func each(hosts []*host, do func(*host) error) error {
	errs := make(chan error, len(hosts))
	for _, h := range hosts {
		go func() { errs <- do(h) }()
	}
	var all []error
	for range hosts {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func killSome(w *world, n int) (fault, error) {
	hosts := w.some(n)
	err := each(hosts, (*host).kill)
	return fault{ids(hosts) + " killed", func() error { return each(hosts, (*host).start) }}, err
}

func stopSome(w *world, n int) (fault, error) {
	hosts := w.some(n)
	err := each(hosts, func(h *host) error { return h.proc.Signal(syscall.SIGSTOP) })
	return fault{ids(hosts) + " stopped", func() error {
		return each(hosts, func(h *host) error { return h.proc.Signal(syscall.SIGCONT) })
	}}, err
}

func losePower(w *world, n int) (fault, error) {
	hosts := w.some(n)
	err := each(hosts, func(h *host) error {
		if err := h.disk.powerLoss(); err != nil {
			return err
		}
		return h.kill()
	})
	return fault{ids(hosts) + " without power", func() error { return each(hosts, remounted) }}, err
}

// remounted brings a node back whose file system has to be mounted anew.
func remounted(h *host) error {
	if err := h.kill(); err != nil {
		return err
	}
	if err := h.disk.again(); err != nil {
		return err
	}
	return h.start()
}

func diskFull(w *world) (fault, error) {
	h := w.some(1)[0]
	err := h.disk.fill()
	return fault{h.id + "'s disk is full", h.disk.unfill}, err
}

func diskHang(w *world) (fault, error) {
	h := w.some(1)[0]
	err := h.disk.hang()
	return fault{h.id + "'s disk hangs", h.disk.unhang}, err
}

func diskFail(w *world) (fault, error) {
	h := w.some(1)[0]
	err := h.disk.powerLoss()
	return fault{h.id + "'s disk fails with EIO", func() error { return remounted(h) }}, err
}

func diskReadOnly(w *world) (fault, error) {
	h := w.some(1)[0]
	err := h.disk.readOnly()
	return fault{h.id + "'s disk is read-only", func() error { return remounted(h) }}, err
}

// membership bounds what an operator's command may take.
const membership = 3 * time.Minute

// joinAndLeave adds a host, whose node joins, and decommissions another.
func joinAndLeave(w *world) (fault, error) {
	old := w.list()[0]
	if err := w.joinOne(); err != nil {
		return fault{}, err
	}
	if err := w.administer("node", "decommission", old.id, "--wait"); err != nil {
		return fault{}, err
	}
	return fault{"a node has joined, " + old.id + " has left", func() error { return w.forget(old) }}, nil
}

// replace loses a host with its disk and has a new one take its place.
func replace(w *world) (fault, error) {
	lost := w.some(1)[0]
	if err := lost.kill(); err != nil {
		return fault{}, err
	}
	if err := w.joinOne(); err != nil {
		return fault{}, err
	}
	hosts := w.list()
	successor := hosts[len(hosts)-1]
	if err := w.administer("node", "replace", lost.id, successor.id, "--wait"); err != nil {
		return fault{}, err
	}
	return fault{lost.id + " is lost and replaced by " + successor.id, func() error { return w.forget(lost) }}, nil
}

// administer runs an operator's command until it is taken: a link may be cut meanwhile.
func (w *world) administer(args ...string) error {
	tries := 0
	_, err := harness.Taken(membership, func() (string, error) {
		tries++
		return w.trimaran(membership, args...)
	})
	if tries > 1 {
		w.say("  taken at try %d: trimaran %s", tries, strings.Join(args, " "))
	}
	return err
}

func (w *world) joinOne() error {
	if err := w.addHost(); err != nil {
		return err
	}
	hosts := w.list()
	h := hosts[len(hosts)-1]
	if err := h.start(); err != nil {
		return err
	}
	err := harness.Eventually(membership, func() bool {
		_, status, err := w.get(h, "/readyz", 2*time.Second)
		return err == nil && status == http.StatusOK
	})
	if err != nil {
		return fmt.Errorf("%s has not joined: %w", h.id, err)
	}
	return nil
}

// forget takes a host whose node has left out of the world.
func (w *world) forget(h *host) error {
	if err := h.kill(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts = slices.DeleteFunc(w.hosts, func(o *host) bool { return o == h })
	w.gone = append(w.gone, h)
	return nil
}

func (w *world) faultTable() string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "fault\ttimes")
	for _, name := range kindNames() {
		if n := w.counts[name]; n > 0 {
			fmt.Fprintf(t, "%s\t%d\n", name, n)
		}
	}
	t.Flush()
	return b.String()
}
