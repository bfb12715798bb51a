package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

func TestRequestsAndAnswersPassInOrder(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	one, two, three := asked(apiMetadata, 1), produce(2, -1), asked(apiFetch, 3, bytes.Repeat([]byte{7}, 200_000)...)
	write(t, client, one[:5], one[5:], append(bytes.Clone(two), three...))
	gw := g.accept(t)
	if got := gw.header.Get(shim.AdvertiseHeader); got != addr {
		t.Errorf("%s is %q, want the shim's address %q", shim.AdvertiseHeader, got, addr)
	}
	gw.want(one, two, three)
	large := bytes.Repeat([]byte{9}, 3<<20)
	gw.send(answer(1))
	gw.send(answer(2, large...))
	gw.send(answer(3, 3))
	wantRead(t, client, answer(1), answer(2, large...), answer(3, 3))
}

func TestReadsThatWaitForAnAnswerAreAskedAgainElsewhere(t *testing.T) {
	a, b := newFakeGateway(t), newFakeGateway(t)
	addr, _ := startProxy(t, a, b)
	client := connect(t, addr)
	requests := [][]byte{asked(apiFetch, 1), asked(apiMetadata, 2), asked(apiListOffsets, 3), asked(apiApiVersions, 4)}
	write(t, client, requests...)
	gw, other := either(t, a, b)
	gw.want(requests...)
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	gw.die()
	gw = other.accept(t)
	gw.want(requests[1:]...)
	for i := range int32(3) {
		gw.send(answer(i + 2))
	}
	wantRead(t, client, answer(2), answer(3), answer(4))
}

func TestAProduceOfUnknownFateEndsTheClientsConnection(t *testing.T) {
	for name, mutating := range map[string][]byte{
		"produce": produce(2, 1), "create topics": asked(19, 2), "a key that nobody knows": asked(999, 2),
	} {
		t.Run(name, func(t *testing.T) {
			g := newFakeGateway(t)
			addr, _ := startProxy(t, g)
			client := connect(t, addr)
			requests := [][]byte{asked(apiMetadata, 1), mutating, asked(apiMetadata, 3)}
			write(t, client, requests...)
			gw := g.accept(t)
			gw.want(requests...)
			gw.send(answer(1))
			gw.die()
			wantRead(t, client, answer(1)) // what was answered is delivered
			wantClosed(t, client)
		})
	}
}

func TestAProduceThatExpectsNoAnswerIsNotWaitedFor(t *testing.T) {
	a, b := newFakeGateway(t), newFakeGateway(t)
	addr, _ := startProxy(t, a, b)
	client := connect(t, addr)
	requests := [][]byte{produce(1, 0), asked(apiMetadata, 2)}
	write(t, client, requests...)
	gw, other := either(t, a, b)
	gw.want(requests...)
	gw.send(answer(2))
	wantRead(t, client, answer(2))
	gw.die()
	write(t, client, asked(apiMetadata, 3))
	gw = other.accept(t)
	gw.want(asked(apiMetadata, 3)) // and not the produce again
	gw.send(answer(3))
	wantRead(t, client, answer(3))
}

func TestAProduceIsHandedOverThoughTheClientLeftAtOnce(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	write(t, client, produce(1, 0), asked(apiMetadata, 2), produce(3, 0))
	client.Close()
	gw := g.accept(t)
	// Metadata may come or not: who asked is gone, and no answer to it is waited for.
	if got := gw.receive(); !bytes.Equal(got, produce(1, 0)) {
		t.Fatalf("%x", got)
	}
	got := gw.receive()
	if bytes.Equal(got, asked(apiMetadata, 2)) {
		got = gw.receive()
	}
	if !bytes.Equal(got, produce(3, 0)) {
		t.Fatalf("%x", got)
	}
	if _, _, err := gw.ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the session ends with %v", err)
	}
}

// A client that has said all it has to say still gets its answers.
func TestAClientThatEndsItsHalfGetsItsAnswers(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	write(t, client, produce(1, -1), asked(apiMetadata, 2))
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	gw := g.accept(t)
	gw.want(produce(1, -1), asked(apiMetadata, 2))
	gw.send(answer(1))
	gw.send(answer(2))
	wantRead(t, client, answer(1), answer(2))
	wantClosed(t, client)
}

func TestAnIdleClientMovesAtAGoodbye(t *testing.T) {
	a, b := newFakeGateway(t), newFakeGateway(t)
	addr, _ := startProxy(t, a, b)
	client := connect(t, addr)
	for i := range int32(4) {
		write(t, client, produce(i, -1))
		gw, _ := either(t, a, b)
		gw.want(produce(i, -1))
		gw.send(answer(i))
		wantRead(t, client, answer(i))
		gw.goodbye("")
		gw.wantGone() // so the next request is not on its way to it
	}
}

// With its promise a goodbye says that what is not answered was not begun.
func TestWhatAGatewayPromisesNotToHaveBegunGoesElsewhere(t *testing.T) {
	a, b := newFakeGateway(t), newFakeGateway(t)
	addr, _ := startProxy(t, a, b)
	client := connect(t, addr)
	requests := [][]byte{produce(1, -1), produce(2, -1), asked(apiFetch, 3)}
	write(t, client, requests...)
	gw, other := either(t, a, b)
	gw.want(requests...)
	gw.send(answer(1))
	gw.goodbye(shim.GoodbyeReason)
	gw = other.accept(t)
	gw.want(requests[1:]...)
	gw.send(answer(2))
	gw.send(answer(3))
	wantRead(t, client, answer(1), answer(2), answer(3))
}

func TestAGoodbyeWithoutAPromiseLeavesAProducesFateUnknown(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	write(t, client, produce(1, -1))
	gw := g.accept(t)
	gw.want(produce(1, -1))
	gw.goodbye("the node is stopping")
	wantClosed(t, client)
}

// A gateway closes with such a code because of what the client sent; after a failed
// produce with acks=0 nothing else tells the client.
func TestAnObjectionReachesTheClient(t *testing.T) {
	for _, code := range []int{websocket.ClosePolicyViolation, websocket.CloseProtocolError, websocket.CloseMessageTooBig, websocket.CloseInternalServerErr} {
		g := newFakeGateway(t)
		addr, _ := startProxy(t, g)
		client := connect(t, addr)
		write(t, client, produce(1, 0))
		gw := g.accept(t)
		gw.want(produce(1, 0))
		gw.closeWith(code, "")
		wantClosed(t, client)
	}
}

func TestARequestThatBreaksEveryGatewayIsGivenUp(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	write(t, client, asked(apiFetch, 1))
	for range maxLosses {
		gw := g.accept(t)
		gw.want(asked(apiFetch, 1))
		gw.die()
	}
	wantClosed(t, client)
}

// The request did not reach the gateway whole, so it was not begun.
func TestAProduceThatWasNotHandedOverWholeGoesElsewhere(t *testing.T) {
	a, b := newFakeGateway(t), newFakeGateway(t)
	addr, _ := startProxy(t, a, b)
	client := connect(t, addr)
	// More than the sockets on the way hold, so the shim is still writing.
	large := produceOf(1, -1, 24<<20)
	written := make(chan error, 1)
	go func() {
		_, err := client.Write(large)
		written <- err
	}()
	gw, other := either(t, a, b)
	if _, r, err := gw.ws.NextReader(); err != nil {
		t.Fatal(err)
	} else if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	gw.die()
	gw = other.accept(t)
	gw.want(large)
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestWhoAuthenticatedIsNotMoved(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	write(t, client, asked(apiSaslHandshake, 1))
	gw := g.accept(t)
	gw.want(asked(apiSaslHandshake, 1))
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	gw.die()
	wantClosed(t, client)
}

func TestAnswersThatFitNoRequestAreNotPassedOn(t *testing.T) {
	for name, bad := range map[string][]byte{
		"out of order": answer(2), "too short": message(0, 0, 0), "nothing asked": nil,
	} {
		t.Run(name, func(t *testing.T) {
			g := newFakeGateway(t)
			addr, _ := startProxy(t, g)
			client := connect(t, addr)
			write(t, client, asked(apiMetadata, 1), asked(apiMetadata, 2))
			gw := g.accept(t)
			gw.want(asked(apiMetadata, 1), asked(apiMetadata, 2))
			if bad != nil {
				gw.send(bad)
			} else {
				gw.send(answer(1))
				gw.send(answer(2))
				gw.send(answer(3))
				wantRead(t, client, answer(1), answer(2))
			}
			wantClosed(t, client)
		})
	}
}

func TestHostileSizesEndOnlyTheirConnection(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	good := connect(t, addr)
	write(t, good, asked(apiMetadata, 1))
	gw := g.accept(t)
	gw.want(asked(apiMetadata, 1))
	for _, bad := range [][]byte{{0xff, 0xff, 0xff, 0xff}, {0x7f, 0xff, 0xff, 0xff}, {0, 0, 0, 0}, {0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7}, []byte("GET / HTTP/1.1\r\n\r\n")} {
		client := connect(t, addr)
		write(t, client, bad)
		wantClosed(t, client)
	}
	gw.send(answer(1))
	wantRead(t, good, answer(1))
}

func TestTooManyClientsAreRefused(t *testing.T) {
	g := newFakeGateway(t)
	p, addr, _ := runProxy(t, []string{"--max-connections=1"}, g)
	p.waitUp(t, 1)
	first := connect(t, addr)
	write(t, first, asked(apiMetadata, 1))
	gw := g.accept(t)
	gw.want(asked(apiMetadata, 1))
	wantClosed(t, connect(t, addr))
	gw.send(answer(1))
	wantRead(t, first, answer(1))
	first.Close()
	for { // the place is free when the first one is gone
		client, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = client.Write(asked(apiMetadata, 2))
		_ = client.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err = client.Read(make([]byte, 1))
		client.Close()
		if e, ok := err.(net.Error); ok && e.Timeout() {
			return
		}
	}
}

func TestAStopLetsPendingAnswersArrive(t *testing.T) {
	g := newFakeGateway(t)
	addr, stop := startProxy(t, g)
	client, idle := connect(t, addr), connect(t, addr)
	write(t, client, produce(1, -1))
	gw := g.accept(t)
	gw.want(produce(1, -1))
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	wantClosed(t, idle)
	for { // nobody new is taken
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		conn.Close()
	}
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	wantClosed(t, client)
	<-stopped
}

func TestAStopDoesNotWaitForEver(t *testing.T) {
	g := newFakeGateway(t)
	p, addr, stop := runProxy(t, []string{"--shutdown-grace=20ms"}, g)
	p.waitUp(t, 1)
	client := connect(t, addr)
	write(t, client, asked(apiFetch, 1))
	gw := g.accept(t)
	gw.want(asked(apiFetch, 1))
	stop()
	wantClosed(t, client)
}

func TestAClientThatTakesNoAnswersDoesNotKeepTheShimFromStopping(t *testing.T) {
	g := newFakeGateway(t)
	p, addr, stop := runProxy(t, []string{"--shutdown-grace=20ms"}, g)
	p.waitUp(t, 1)
	client := connect(t, addr)
	write(t, client, asked(apiFetch, 1))
	gw := g.accept(t)
	gw.want(asked(apiFetch, 1))
	gw.send(answer(1, make([]byte, 24<<20)...))
	if _, err := client.Read(make([]byte, 1)); err != nil { // the answer has begun
		t.Fatal(err)
	}
	stop()
}

// As a node says it, and not by the size that the letters would be.
func TestWhatIsNoKafkaIsCalledByItsName(t *testing.T) {
	for first, want := range map[string]string{"GET / HTTP/1.1\r\n\r\n": "HTTP", "\x16\x03\x01\x02\x00\x01": "TLS", "\x7f\xff\xff\xff": "size 2147483647"} {
		near, far := net.Pipe()
		go func() { _, _ = near.Write([]byte(first)) }()
		_, err := newClient(far, 100<<20, newBudget(1<<20)).readRequest(context.Background())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", first, err)
		}
		near.Close()
		far.Close()
	}
}

// What a client asked about a transaction, and had not been handed over when the client closed, is
// not handed over any more. The rest is, also where it was cut off in the middle of a request.
func TestATransactionsRequestIsLeftByAClientThatIsGone(t *testing.T) {
	initTransactional := kmsg.NewPtrInitProducerIDRequest()
	initTransactional.TransactionalID = kmsg.StringPtr("t")
	initFrame := kmsg.NewRequestFormatter().AppendRequest(nil, initTransactional, 6)
	for end, want := range map[error][]int32{
		io.EOF:              {1, 2, 4}, // it may wait for the answer
		syscall.ECONNRESET:  {1, 2},
		io.ErrUnexpectedEOF: {1, 2},
	} {
		s := &session{proxy: &proxy{requestMemory: newBudget(1 << 20)}}
		for _, frame := range [][]byte{
			asked(apiEndTxn, 1), produce(2, 1), asked(apiEndTxn, 3), asked(apiMetadata, 4), asked(apiAddPartitions, 5), initFrame, asked(apiWriteTxnMarkers, 7),
		} {
			r, err := parseRequest(frame)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.proxy.requestMemory.Acquire(t.Context(), len(frame)); err != nil {
				t.Fatal(err)
			}
			s.queue = append(s.queue, r)
		}
		s.handed = 1
		if err := s.clientLeft(end); err != nil {
			t.Fatal(err)
		}
		var left []int32
		for _, r := range s.queue {
			left = append(left, r.correlation)
		}
		if !slices.Equal(left, want) {
			t.Errorf("%v: %v are left, want %v", end, left, want)
		}
	}
}

// frameOf is a message of less than 64 KiB as the only frame that a gateway sends it in.
func frameOf(message []byte) []byte {
	head := []byte{0x82, byte(len(message))}
	if len(message) >= 126 {
		head = binary.BigEndian.AppendUint16([]byte{0x82, 126}, uint16(len(message)))
	}
	return append(head, message...)
}

// goodbyeOf is the frame of a gateway's goodbye.
func goodbyeOf(reason string) []byte {
	body := websocket.FormatCloseMessage(websocket.CloseGoingAway, reason)
	return append([]byte{0x88, byte(len(body))}, body...)
}

// The last answers of a gateway and its goodbye may come by one read: nobody waits between them.
func TestAnAnswerArrivesWithTheGoodbyeBehindIt(t *testing.T) {
	for _, reason := range []string{"", shim.GoodbyeReason} {
		g := newFakeGateway(t)
		addr, _ := startProxy(t, g)
		client := connect(t, addr)
		write(t, client, produce(1, -1), asked(apiMetadata, 2))
		gw := g.accept(t)
		gw.want(produce(1, -1), asked(apiMetadata, 2))
		write(t, gw.ws.NetConn(), slices.Concat(frameOf(answer(1)), frameOf(answer(2)), goodbyeOf(reason)))
		wantRead(t, client, answer(1), answer(2))
	}
}

// The session may leave its gateway between an answer and the moment at which its reader waits.
func TestAnAnswerArrivesThoughItsGatewayIsLeftBehindIt(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	p := newProxy(settings{maxMemoryBytes: 1 << 20}, nil, discard())
	s := newSession(p, newClient(near, 1<<20, p.requestMemory), "")
	from := newAnswers(s)
	close(from.begin)
	r, err := parseRequest(produce(1, -1))
	if err != nil {
		t.Fatal(err)
	}
	s.queue, s.handed, s.from = []*request{r}, 1, from
	done := make(chan struct{})
	go func() {
		defer close(done)
		from.take(answer(1))
		s.mu.Lock()
		s.from = nil // as settle does
		s.mu.Unlock()
		from.waiting()
	}()
	_ = far.SetDeadline(time.Now().Add(10 * time.Second))
	wantRead(t, far, answer(1))
	<-done
}

// The next answer may have to wait for memory, which others hold.
func TestAnAnswerArrivesThoughTheNextOneWaitsForMemory(t *testing.T) {
	g := newFakeGateway(t)
	p, addr, _ := runProxy(t, nil, g)
	p.waitUp(t, 1)
	client := connect(t, addr)
	write(t, client, asked(apiMetadata, 1), asked(apiMetadata, 2))
	gw := g.accept(t)
	gw.want(asked(apiMetadata, 1), asked(apiMetadata, 2))
	all := int(p.answerMemory.most)
	if err := p.answerMemory.Acquire(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	release := sync.OnceFunc(func() { p.answerMemory.Release(all) })
	defer release()
	next := answer(2, make([]byte, 2*smallMessage)...)
	write(t, gw.ws.NetConn(), slices.Concat(frameOf(answer(1)), frameOf(next)))
	wantRead(t, client, answer(1))
	release()
	wantRead(t, client, next)
}

// Who logs in while its gateway is about to be left stays: nobody else knows of the login.
func TestALoginThatHasBegunKeepsItsGateway(t *testing.T) {
	a, b := newFakeGateway(t), newFakeGateway(t)
	p, addr, _ := runProxy(t, nil, a, b)
	p.waitUp(t, 2)
	client := connect(t, addr)
	write(t, client, asked(apiApiVersions, 1))
	gw, other := either(t, a, b)
	gw.want(asked(apiApiVersions, 1))
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	write(t, client, asked(apiSaslHandshake, 2))
	gw.want(asked(apiSaslHandshake, 2))
	for _, g := range []*fakeGateway{a, b} {
		if g != other {
			g.says(shim.NotServing)
		}
	}
	p.waitAway(t)
	gw.send(answer(2))
	wantRead(t, client, answer(2))
	write(t, client, asked(apiMetadata, 3))
	gw.want(asked(apiMetadata, 3))
	gw.send(answer(3))
	wantRead(t, client, answer(3))
}

// A transaction's request that a gateway promises not to have begun goes nowhere if its client is
// gone by then.
func TestATransactionsRequestIsNotAskedAgainForAClientThatIsGone(t *testing.T) {
	g := newFakeGateway(t)
	p, _, _ := runProxy(t, nil, g)
	p.waitUp(t, 1)
	s, _ := sessionAt(t, p, asked(apiMetadata, 1), asked(apiEndTxn, 2), produce(3, -1), asked(apiEndTxn, 4))
	gw := g.accept(t)
	s.writing = []*request{s.queue[3]}
	if err := s.clientLeft(io.EOF); err != nil {
		t.Fatal(err)
	}
	if err := s.event(event{wrote: s.queue[3], writeErr: io.ErrClosedPipe}); err != nil {
		t.Fatal(err)
	}
	promise := &websocket.CloseError{Code: websocket.CloseGoingAway, Text: shim.GoodbyeReason}
	if err := s.lose(promise); err != nil {
		t.Fatal(err)
	}
	var left []int32
	for _, r := range s.queue {
		left = append(left, r.correlation)
	}
	if !slices.Equal(left, []int32{1, 3}) {
		t.Errorf("%v are left", left)
	}
	gw.wantGone()
}

// sessionAt makes a session whose loop does not run yet, that has handed requests over to a
// gateway, which did not get them. Its client takes nothing before the other end of the pipe is
// read.
func sessionAt(t *testing.T, p *proxy, frames ...[]byte) (*session, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	_ = far.SetDeadline(time.Now().Add(30 * time.Second))
	s := newSession(p, newClient(near, 1<<20, p.requestMemory), "127.0.0.1:1")
	from := newAnswers(s)
	dialer := p.dialer
	dialer.Advertise = s.advertise
	dialer.Receive, dialer.Waiting, dialer.Memory = from.take, from.waiting, from
	up, err := p.gateways.dial(t.Context(), dialer, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, frame := range frames {
		r, err := parseRequest(frame)
		if err != nil {
			t.Fatal(err)
		}
		s.queue = append(s.queue, r)
		s.bytes += len(frame)
	}
	s.up, s.from, s.handed = up, from, len(frames)
	close(from.begin)
	return s, far
}

// A gateway that is left, or takes no requests, has so long to answer. What a client needs for an
// answer does not count: the next ones may have come already.
func TestASlowClientGetsTheAnswersBehindALargeOne(t *testing.T) {
	for _, why := range []string{"left", "takes no requests"} {
		t.Run(why, func(t *testing.T) {
			g := newFakeGateway(t)
			p, _, _ := runProxy(t, nil, g)
			p.waitUp(t, 1)
			s, client := sessionAt(t, p, asked(apiFetch, 1), produce(2, -1))
			gw := g.accept(t)
			large := answer(1, make([]byte, 2*smallAnswers)...)
			write(t, gw.ws.NetConn(), frameOf(large), frameOf(answer(2)))
			begun := make([]byte, 1)
			if _, err := io.ReadFull(client, begun); err != nil { // the rest is waited for
				t.Fatal(err)
			}
			over := make(chan time.Time, 1)
			over <- time.Now()
			timer := &s.parting
			if why != "left" {
				s.broken, timer = true, &s.late
			}
			*timer = over
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- s.run(ctx, ctx, nil) }()
			waitFor(t, func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return *timer != over
			})
			wantRead(t, client, large[1:], answer(2))
			cancel()
			<-ran
			s.release()
			p.background.Wait()
		})
	}
}

// A client that takes nothing keeps no reader of a gateway that its session has left, nor the
// memory of the answer.
func TestWhoHasBeenLeftDoesNotWaitForTheClient(t *testing.T) {
	g := newFakeGateway(t)
	p, _, _ := runProxy(t, nil, g)
	p.waitUp(t, 1)
	s, _ := sessionAt(t, p, asked(apiFetch, 1))
	gw := g.accept(t)
	<-s.answering // somebody writes to the client
	gw.send(answer(1, make([]byte, 2*smallMessage)...))
	waitFor(t, func() bool { return p.answerMemory.held.Load() > 0 })
	s.mu.Lock()
	err := s.lose(errMoved)
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	p.background.Wait() // the connection and its reader have ended
	if held := p.answerMemory.held.Load(); held != 0 {
		t.Errorf("answers hold %d bytes", held)
	}
	s.answering <- struct{}{}
	s.release()
}

// A request that was kept for the next one to go with it does not wait for memory with that one.
func TestARequestIsSentThoughTheNextOneWaitsForMemory(t *testing.T) {
	g := newFakeGateway(t)
	p, addr, _ := runProxy(t, nil, g)
	p.waitUp(t, 1)
	all := int(p.settings.maxMemoryBytes)
	if !p.requestMemory.TryAcquire(all) {
		t.Fatal("somebody has taken memory")
	}
	client := connect(t, addr)
	large := produceOf(2, -1, 2*smallMessage)
	write(t, client, append(asked(apiMetadata, 1), large...))
	gw := g.accept(t)
	gw.want(asked(apiMetadata, 1))
	p.requestMemory.Release(all)
	gw.want(large)
}

// Of requests that are tried together the gateway got some, and the others are as they were.
func TestWhatWasNotSentTogetherIsSentAgain(t *testing.T) {
	for _, c := range []struct {
		name         string
		sent         int
		goOn         bool // the writer goes on with the next one
		early        bool // the second one was answered before it was known what was sent
		handed, left int  // left: the correlation id of what the writer has; 0: nothing
	}{
		{"all", 4, false, false, 3, 0},
		{"two", 2, false, false, 1, 0},
		{"two, the third in part", 2, true, false, 2, 3},
		{"none", 0, true, false, 1, 1},
		{"two, one answered", 2, false, true, 0, 0},
		{"one, and what it has not got was answered", 1, false, true, 0, 0},
	} {
		g := newFakeGateway(t)
		p, _, _ := runProxy(t, nil, g)
		s := newSession(p, newClient(nil, 1<<20, p.requestMemory), "")
		for i, acks := range []int16{0, -1, -1, -1} {
			r, err := parseRequest(produce(int32(i+1), acks))
			if err != nil {
				t.Fatal(err)
			}
			s.queue = append(s.queue, r)
			s.bytes += len(r.frame)
		}
		asked := append([]*request(nil), s.queue...)
		if s.begin(); s.handed != 4 || len(s.writing) != 4 || len(s.frames) != 4 {
			t.Fatalf("%s: %d are handed over, %d written", c.name, s.handed, len(s.writing))
		}
		if c.early {
			s.remove(1)
		}
		left := s.sent(c.sent, c.goOn)
		if got := int32(c.left); left == nil && got != 0 || left != nil && left.correlation != got {
			t.Errorf("%s: the writer has %v, want %d", c.name, left, c.left)
		}
		if s.handed != c.handed || len(s.writing) != min(c.left, 1) {
			t.Errorf("%s: %d are handed over, want %d; %d written", c.name, s.handed, c.handed, len(s.writing))
		}
		at := 0
		for i, r := range asked {
			gone := i == 0 && c.sent > 0 || i == 1 && c.early
			if !gone && (at >= len(s.queue) || s.queue[at] != r) {
				t.Errorf("%s: request %d is not where it was", c.name, i+1)
			}
			if !gone {
				at++
			}
		}
		s.queue = nil
	}
}
