package transaction

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/fsm/transactions"
)

// transact is one transaction: values to targets, and how it is to end. It returns the values, and
// what the client knows of how it ended: "committed", "aborted", or "" that it does not know.
func (c *client) transact(ctx context.Context, name string, targets []string, commit bool) ([]*value, string) {
	var values []*value
	for _, target := range targets {
		v, err := c.write(ctx, name, target)
		if err != nil {
			return values, ""
		}
		if v != nil {
			values = append(values, v)
		}
	}
	if c.end(ctx, commit) != nil {
		return values, ""
	}
	if commit {
		return values, "committed"
	}
	return values, "aborted"
}

// checkValues holds that a transaction is one: its values have one fate, the one that its client
// was told. What stood in a topic that was deleted counts no more.
func (w *world) checkValues(name string, values []*value, told string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range values {
		if w.gone[v.target] {
			continue
		}
		if told == "" {
			told = v.fate
		}
		if v.fate != told {
			w.t.Errorf("%s: its value in %s is %q, want %q", name, v.target, v.fate, told)
		}
	}
}

// TestEveryCrashPoint has the coordinator die before and after each of its writes, commands and
// markers, and each of them be lost or late, one at a time, in a program of both versions. Whatever
// happens, each transaction is whole and ends as its producer was told, and at the next coordinator
// the program goes on.
func TestEveryCrashPoint(t *testing.T) {
	for _, mode := range []struct{ v2, ahead bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		for _, how := range []fate{failed, lost, late, noticed, crashBefore, crashAfter, slow, stray, onItsWay, voided} {
			t.Run(fmt.Sprintf("version2=%v/ahead=%v/fate=%d", mode.v2, mode.ahead, how), func(t *testing.T) {
				for at := 1; ; at++ {
					n := 0
					synctest.Test(t, func(t *testing.T) {
						defer logIfFailed(t, "with write", at)
						n = crashAt(t, mode.v2, mode.ahead, how, at)
					})
					if n < at {
						if at < 15 {
							t.Errorf("there are only %d writes", n)
						}
						return
					}
				}
			})
		}
	}
}

// logIfFailed says where a test failed. It is deferred within a bubble: the test ends with the
// first that fails.
func logIfFailed(t *testing.T, where string, n int) {
	if t.Failed() {
		t.Log(where, n)
	}
}

// crashAt runs the program with that fate for one write, and returns how many writes there were.
func crashAt(t *testing.T, v2, ahead bool, how fate, at int) int {
	n := 0
	w := newWorld(t, ahead, func(string) fate {
		n++
		if n == at {
			return how
		}
		return done
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); synctest.Wait(); w.c.Close() }()
	go w.failovers(ctx)
	c := &client{w: w, name: "a", id: "x", v2: v2}
	if err := c.init(ctx); err != nil {
		t.Fatal(err)
	}
	told := make(map[string]string)
	values := make(map[string][]*value)
	for i, program := range []struct {
		targets []string
		commit  bool
	}{{[]string{"t/0", "t/1", "group g"}, true}, {[]string{"t/1", "t/0"}, false}, {[]string{"t/0"}, true}} {
		name := fmt.Sprint("transaction ", i)
		values[name], told[name] = c.transact(ctx, name, program.targets, program.commit)
		if told[name] == "" {
			t.Errorf("%s did not end", name)
		}
	}
	// another producer takes the id in the middle of a transaction
	values["cut"], told["cut"] = nil, "aborted"
	for _, target := range []string{"t/0", "t/1"} {
		v, err := c.write(ctx, "cut", target)
		if err != nil {
			t.Fatal(err)
		}
		values["cut"] = append(values["cut"], v)
	}
	other := &client{w: w, name: "b", id: "x", v2: v2}
	if err := other.init(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.end(ctx, true); err == nil {
		t.Error("a fenced producer commits")
	}
	values["last"], told["last"] = other.transact(ctx, "last", []string{"t/1", "t/2"}, true)
	// its process ends in the middle of the next
	v, err := other.write(ctx, "left", "t/2")
	if err != nil {
		t.Fatal(err)
	}
	values["left"], told["left"] = []*value{v}, "aborted"
	w.mu.Lock()
	writes := n
	w.mu.Unlock()
	w.settle()
	for name, values := range values {
		w.checkValues(name, values, told[name])
	}
	return writes
}

// TestChaos: several producers, two of which fight for one id, while commands and markers fail, are
// lost or late, coordinators die and a topic's partition goes. The reference model of a partition
// (world) tells who sees what.
func TestChaos(t *testing.T) {
	rounds := fromEnv(t, "CHAOS_RUNS", 300)
	if testing.Short() {
		rounds = 50
	}
	ended, held, start := 0, 0, fromEnv(t, "CHAOS_SEED", 0)
	for seed := start; seed < start+rounds; seed++ {
		synctest.Test(t, func(t *testing.T) {
			defer logIfFailed(t, "with seed", seed)
			n, cuts := chaos(t, uint64(seed))
			ended, held = ended+n, held+cuts
		})
	}
	if ended < 2*rounds {
		t.Errorf("%d transactions ended in %d rounds", ended, rounds)
	}
	if held < 2*rounds {
		t.Errorf("commits were held all along %d times in %d rounds", held, rounds)
	}
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// unusual rolls what few worlds have.
func (w *world) unusual(dice *rand.Rand) {
	w.copies, w.recovers = dice.IntN(3) == 0, dice.IntN(3) == 0
	if dice.IntN(4) == 0 {
		w.renews = dice
	}
	if dice.IntN(4) == 0 {
		w.set = Settings{IDExpiration: 20 * time.Second, RemoveInterval: 5 * time.Second}
	}
	if dice.IntN(3) == 0 { // epochs are nearly used up
		for i := range 3 {
			var c transactions.Changes
			c.Set(fmt.Sprint("id ", i), 0, uint64(i+1), transactions.Producer{
				ProducerID: int64(i), Previous: int64(i), Next: -1, Epoch: lastEpoch - int16(dice.IntN(6)), LastEpoch: -1,
				Timeout: 20_000, Start: -1, Updated: time.Now().UnixMilli(),
			})
			w.apply(transactions.Encode(c))
		}
	}
	w.c.Close()
	w.lead()
}

// chaos gives how many transactions ended as their producers were told. With some seeds that is
// none: producers go in the middle of their first, or fence each other. And how often commits were
// held while somebody read.
func chaos(t *testing.T, seed uint64) (ended, held int) {
	random := rand.New(rand.NewPCG(seed, 1)) // under world.mu in decide, else before anything runs
	trouble, goes := random.IntN(30)+1, random.IntN(3) == 0
	w := newWorld(t, seed%4 > 0, func(kind string) fate {
		if random.IntN(100) >= trouble {
			return done
		}
		switch kind {
		case "marker":
			return []fate{failed, failed, lost, slow, noticed, stray, stray, onItsWay, onItsWay, voided, voided, crashBefore, crashAfter}[random.IntN(13)]
		case "confirm":
			return []fate{failed, crashBefore, crashAfter}[random.IntN(3)]
		}
		return []fate{failed, lost, slow, late, late, crashBefore, crashAfter}[random.IntN(7)]
	})
	w.unusual(rand.New(rand.NewPCG(seed, 100)))
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); synctest.Wait(); w.c.Close() }()
	go w.failovers(ctx)
	cuts := &cuts{w: w, random: rand.New(rand.NewPCG(seed, 100))}
	var holders sync.WaitGroup
	holding, let := context.WithCancel(ctx)
	defer let()
	holders.Go(func() { cuts.run(holding) })

	type result struct {
		name   string
		values []*value
		told   string
	}
	var mu sync.Mutex
	var results []result
	var clients sync.WaitGroup
	targets := []string{"t/0", "t/1", "t/2", "group g", "group h"}
	for i := range 5 {
		random := rand.New(rand.NewPCG(seed, uint64(i)+2))
		c := &client{w: w, name: fmt.Sprint("client ", i), id: fmt.Sprint("id ", i/2), v2: random.IntN(2) == 0}
		if w.copies {
			c.copies = rand.New(rand.NewPCG(seed, uint64(i)+200))
		}
		c.pause = func() time.Duration {
			return []time.Duration{0, 0, 0, 0, 0, 10 * time.Millisecond, 100 * time.Millisecond, 25 * time.Second}[random.IntN(8)]
		}
		clients.Go(func() {
			for n := range 8 {
				if n == 0 || random.IntN(4) == 0 {
					if c.init(ctx) != nil {
						return
					}
				}
				var chosen []string
				for range random.IntN(4) + 1 {
					chosen = append(chosen, targets[random.IntN(len(targets))])
				}
				name := fmt.Sprintf("%s, transaction %d", c.name, n)
				if random.IntN(10) == 0 { // its process ends, and nobody takes its place
					_, _ = c.write(ctx, name, chosen[0])
					return
				}
				values, told := c.transact(ctx, name, chosen, random.IntN(3) > 0)
				mu.Lock()
				results = append(results, result{name, values, told})
				mu.Unlock()
				switch {
				case told != "" || w.recovers && c.recover(ctx) == nil:
				case c.init(ctx) != nil: // fenced: another instance takes its place
					return
				}
				time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
			}
		})
	}
	if goes {
		time.Sleep(time.Second)
		w.mu.Lock()
		w.gone["t/2"] = true
		w.mu.Unlock()
	}
	clients.Wait()
	let()
	holders.Wait()
	w.settle()
	for _, r := range results {
		w.checkValues(r.name, r.values, r.told)
		cuts.check(r.name, r.values)
		if r.told != "" {
			ended++
		}
	}
	return ended, len(cuts.all)
}
