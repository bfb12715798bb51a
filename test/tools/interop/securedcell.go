package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// refusedWithin is how much longer a client may take to say that its password is wrong than it
// takes to get in.
const refusedWithin = 5 * time.Second

// allSecured runs every row of a secured cluster.
func (b *bench) allSecured(ctx context.Context, rows []prepared) []result {
	var out []result
	for _, r := range rows {
		ways := mechanisms
		if r.run != nil {
			ways = mechanisms[2:3]
		}
		for _, m := range ways {
			in := b.waysOf(r)
			cells := make([]result, len(in))
			var wg sync.WaitGroup
			for i, way := range in {
				wg.Go(func() { cells[i] = b.securedCell(ctx, r, m, way) })
			}
			wg.Wait()
			out = append(out, cells...)
		}
	}
	if b.kill {
		for _, r := range rows {
			if r.run == nil && !r.noShim {
				out = append(out, b.underKills(ctx, r)...)
			}
		}
	}
	return out
}

// newAttempt is a client with a login, or the result that there is none.
func (b *bench) newAttempt(r prepared, mechanism, way, pass string) (*attempt, result) {
	res := result{Client: r.name, Version: r.version, Mode: r.mode, Way: way, Pass: pass, Mechanism: mechanism, Result: ok}
	if r.err != nil {
		res.Result, res.Reason = missing, r.err.Error()
		return nil, res
	}
	if why := cannot[r.name][mechanism]; why != "" {
		res.Result, res.Reason = impossible, mechanism+": "+why
		return nil, res
	}
	dir := filepath.Join(b.work, strings.Join([]string{strings.ReplaceAll(r.name, " ", "_"), mechanism, way, pass}, "-"))
	a := &attempt{bench: b, prepared: r, way: way, pass: pass, dir: dir, mechanism: mechanism}
	a.topic = harness.Topic(securedTopic + "-" + strings.ReplaceAll(r.name, " ", "-"))
	return a, res
}

// done fills a result in.
func (a *attempt) result(res result, started time.Time, err error) result {
	a.end()
	res.Seconds, res.Notes = time.Since(started).Seconds(), a.notes
	if err != nil {
		res.Result, res.Reason = failed, err.Error()
		say("FAIL %s (%s, %s, %s): %v\n%s", a.name, a.mechanism, a.way, a.pass, err, a.tail(25))
	} else {
		say("ok   %s (%s, %s, %s) %.1f s %s", a.name, a.mechanism, a.way, a.pass, res.Seconds, strings.Join(a.notes, "; "))
	}
	return res
}

func (b *bench) securedCell(ctx context.Context, r prepared, mechanism, way string) result {
	a, res := b.newAttempt(r, mechanism, way, "quiet")
	if a == nil {
		return res
	}
	started := time.Now()
	do := a.doSecured
	if a.run != nil {
		do = func(ctx context.Context) error { return a.run(ctx, a) }
	}
	return a.result(res, started, do(ctx))
}

// as has the client log in as that user from now on.
func (a *attempt) as(user string) error {
	file, err := a.guard.login(a.dir, a.mechanism, user)
	ca := filepath.Join(a.guard.dir, "ca.crt")
	a.env = append(slices.Clip(a.prepared.env), "INTEROP_LOGIN="+file, "NODE_EXTRA_CA_CERTS="+ca, "DENO_CERT="+ca)
	return err
}

// doSecured is what each client goes through:
//
//	login     with what is right, with a password of odd characters, and with a password or token
//	          that is wrong
//	create    the client makes a topic, which its rights allow
//	produce   records; a group of one reads them (not with -quick), and then they are read
//	          without a group
func (a *attempt) doSecured(ctx context.Context) error {
	if err := a.makeTopic(ctx, a.topic+"-login", 1); err != nil {
		return err
	}
	for _, user := range []string{rightUser, oddUser, wrongUser} {
		if user == oddUser && a.mechanism == "OAUTHBEARER" {
			continue
		}
		if err := a.logIn(ctx, user, user != wrongUser); err != nil {
			return fmt.Errorf("as %s: %w", user, err)
		}
	}
	if err := a.as(rightUser); err != nil {
		return err
	}
	if why := tokenless[a.name]; why != "" && a.mechanism == "OAUTHBEARER" {
		a.noAdmin = true
		a.note("OAUTHBEARER: %s", why)
	}
	if err := a.create(ctx); err != nil {
		return err
	}
	c := chunk{"none", batch("secured", a.records)}
	if _, err := a.produce(ctx, c, false); err != nil {
		return err
	}
	if a.groups {
		if err := a.alone(ctx, c.records); err != nil {
			return fmt.Errorf("group: %w", err)
		}
	}
	return a.readBack(ctx, c.records)
}

// logIn runs step login, which must find a client in or refused.
func (a *attempt) logIn(ctx context.Context, user string, in bool) error {
	if err := a.as(user); err != nil {
		return err
	}
	a.trace("login as %s", user)
	c, err := a.startClient(ctx, "login-"+user, a.bootstrap(a.way, nil), a.mode, "login", a.topic+"-login", "-")
	if err != nil {
		return err
	}
	c.stdin.Close()
	var why string
	var refused, entered bool
	err = a.await("login", func() (bool, error) {
		why, refused = c.heard("refused")
		_, entered = c.heard("in")
		return refused || entered, c.ended()
	})
	// A client that was refused may take its time to end, or not end well: it goes on trying.
	c.kill()
	if err != nil && !refused && !entered {
		return err
	}
	switch {
	case in && entered && !refused, !in && refused && !entered:
	default:
		return fmt.Errorf("in: %v, refused: %v %s", entered, refused, why)
	}
	if entered {
		a.entered = c.saidAt("in").Sub(c.saidAt("asking"))
		return nil
	}
	// Where the machine is busy, what is right takes its time, too.
	took := c.saidAt("refused").Sub(c.saidAt("asking"))
	if took > refusedWithin+a.entered {
		return fmt.Errorf("refused after %.1f s: %s", took.Seconds(), why)
	}
	a.trace("refused after %.1f s: %s", took.Seconds(), why)
	return nil
}

// alone has a group of one read everything.
func (a *attempt) alone(ctx context.Context, written []record) error {
	c, err := a.startClient(ctx, "member", a.args("group", a.topic+"-group")...)
	if err != nil {
		return err
	}
	err = a.await("the member reads everything", func() (bool, error) { return distinct(c.got()) >= len(written), c.ended() })
	if err != nil {
		return fmt.Errorf("%w (%d of %d records came)", err, c.count(), len(written))
	}
	if err := a.leave(c); err != nil {
		return err
	}
	if _, err := check(written, c.got(), a.rules(true)); err != nil {
		return err
	}
	return a.committed(ctx, a.topic+"-group")
}
