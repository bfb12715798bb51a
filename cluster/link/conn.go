package link

import (
	"bufio"
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/trimaran-io/trimaran/internal/locks"
)

const (
	// maxQueued bounds the bytes that wait to be written on one connection; who wants to add more
	// waits.
	maxQueued = 64 << 20
	// maxDirect is the most that is written by who calls Outbox.Write. More may not fit into the
	// socket, and keeps the caller from what it has to do besides.
	maxDirect = 128 << 10
	// writeBatch is about how much goes into one write.
	writeBatch = 512 << 10
	// maxYields bounds how often the writer gives way to who may have something to send, too.
	maxYields = 4
	// maxParts bounds the pieces of one write (the kernel takes 1024).
	maxParts = 512
	// smallPart is the size below which copying is cheaper than a piece of its own.
	smallPart = 2 << 10
	// writeStall ends a connection whose other side takes no byte for so long.
	writeStall = 20 * time.Second
	// frameOverhead is what a queued message counts beyond its bytes.
	frameOverhead = 256
)

// message states. Only queued → writing and queued → dropped compete.
const (
	msgQueued int32 = iota
	msgWriting
	msgDropped
)

// message is one frame on its way out.
type message struct {
	parts [][]byte // header first; not changed by anyone from now on
	size  int64
	free  bool // took no room
	held  bool // is in the Outbox's care
	state atomic.Int32
}

func newMessage(typ, kind uint8, id uint64, parts ...[]byte) *message {
	m := &message{parts: make([][]byte, 1, 1+len(parts))}
	m.parts[0] = appendHeader(make([]byte, 0, headerSize), typ, kind, id, parts)
	for _, p := range parts {
		if len(p) > 0 {
			m.parts = append(m.parts, p)
		}
	}
	for _, p := range m.parts {
		m.size += int64(len(p))
	}
	return m
}

func (m *message) room() int64 { return min(m.size+frameOverhead, maxQueued) }

// drop takes the message out of the queue unless the writer has it already:
// true means that no byte of it was or will be sent.
func (m *message) drop() bool { return m.state.CompareAndSwap(msgQueued, msgDropped) }

// conn is one connection after its handshake: a goroutine that reads frames and
// hands them to receive, and one that writes what is queued, many messages in one write.
//
// What is held (Outbox) wakes no writing goroutine: another one has the turn to write instead, as
// far as the socket takes it at once, and leaves the rest to the writing goroutine.
type conn struct {
	base   *base
	nc     net.Conn
	class  Class
	remote string // address, for logs
	dialed bool   // this side opened it

	// receive gets every frame, on the reading goroutine: it must not block.
	receive func(c *conn, h frameHeader, body []byte) error
	// died is told once, when the connection is over, on any goroutine.
	died func(c *conn, err error)

	ctx    context.Context // ends with the connection
	cancel context.CancelCauseFunc
	over   atomic.Bool

	lastRead  atomic.Int64 // link clock, ns: some byte arrived
	lastWrite atomic.Int64 // link clock, ns: some bytes were taken by the kernel
	heard     *atomic.Int64

	room *semaphore.Weighted
	// now writes as much of parts as the socket takes without waiting, and says how many bytes that
	// was; that it takes none is no error. nil: that cannot be had, over TLS for one, which may
	// wait in any call. Then nothing is held.
	now func(parts [][]byte) (written int, err error)

	mu      locks.Mutex[conn] // guards what follows; nothing is called under it
	queue   []*message
	urgent  []*message // pings, pongs, credits: few and tiny, go first, do not wait for room
	writing bool       // somebody has the turn to write, and out
	left    bool       // who had the turn left the rest to the writing goroutine
	stopped bool
	wake    chan struct{} // capacity 1

	out batchWriter // of who has the turn
}

func newConn(b *base, nc net.Conn, cl Class, heard *atomic.Int64) *conn {
	c := &conn{base: b, nc: nc, class: cl, heard: heard, room: semaphore.NewWeighted(maxQueued), wake: make(chan struct{}, 1)}
	c.out.c = c
	if b.cfg.Outbox != nil {
		c.now = writesNow(nc)
	}
	if a := nc.RemoteAddr(); a != nil {
		c.remote = a.String()
	}
	c.ctx, c.cancel = context.WithCancelCause(b.ctx)
	now := b.Now()
	c.lastRead.Store(now)
	c.lastWrite.Store(now)
	return c
}

// start begins reading and writing. receive and died must be set.
func (c *conn) start() {
	c.base.conns.track(c)
	c.base.tasks.wg.Go(c.readLoop)
	c.base.tasks.wg.Go(c.writeLoop)
}

// close ends the connection; only the first call counts. When any call returns, ctx has ended.
func (c *conn) close(err error) {
	c.cancel(err)
	if !c.over.CompareAndSwap(false, true) {
		return
	}
	c.mu.Lock()
	c.stopped = true
	c.queue, c.urgent = nil, nil
	c.mu.Unlock()
	_ = c.nc.Close()
	c.base.conns.untrack(c)
	if c.died != nil {
		c.died(c, err)
	}
}

// stampReader notes that bytes arrive, also in the middle of a large frame.
type stampReader struct{ c *conn }

func (r stampReader) Read(p []byte) (int, error) {
	n, err := r.c.nc.Read(p)
	if n > 0 {
		now := r.c.base.Now()
		r.c.lastRead.Store(now)
		if r.c.heard != nil {
			r.c.heard.Store(now)
		}
		r.c.base.stats.bytesIn.Add(uint64(n))
	}
	return n, err
}

func (c *conn) readLoop() {
	r := bufio.NewReaderSize(stampReader{c}, 64<<10)
	for {
		h, body, err := readFrame(r, c.base.cfg.MaxMessageBytes)
		if err == nil {
			c.base.stats.framesIn.Add(1)
			err = c.receive(c, h, body)
		}
		if err != nil {
			c.close(err)
			return
		}
	}
}

// send queues m, waiting for room within ctx. An error means that m was not
// queued and never will be. Nil means queued: whether it was written is for
// m.drop to say.
func (c *conn) send(ctx context.Context, m *message) error {
	locks.MayWait("room on a connection")
	if !c.room.TryAcquire(m.room()) {
		// The wait also ends with the connection.
		wait, cancel := context.WithCancelCause(ctx)
		stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
		err := c.room.Acquire(wait, m.room())
		cause := context.Cause(wait)
		stop()
		cancel(nil)
		if err != nil {
			return cause
		}
	}
	return c.enqueue(m)
}

// trySend queues m if there is room at once.
func (c *conn) trySend(m *message) bool {
	return c.room.TryAcquire(m.room()) && c.enqueue(m) == nil
}

func (c *conn) enqueue(m *message) error {
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		c.room.Release(m.room())
		return context.Cause(c.ctx)
	}
	c.queue = append(c.queue, m)
	c.mu.Unlock()
	if !m.held || c.now == nil || m.size > maxDirect || !c.base.cfg.Outbox.add(c) {
		c.poke()
	}
	return nil
}

// writeHeld writes what is queued, as far as that needs no waiting, unless somebody has the turn
// already or it is much. The writing goroutine does the rest, and finds an error of a write here
// where it would find its own.
func (c *conn) writeHeld() {
	w := &c.out
	c.mu.Lock()
	switch {
	case len(c.queue) == 0: // somebody was here before
		c.mu.Unlock()
		return
	case c.writing || sizeOf(c.queue) > maxDirect:
		c.mu.Unlock()
		c.poke()
		return
	}
	c.writing = true
	w.takeLocked()
	c.mu.Unlock()
	w.addUrgent()
	for _, m := range w.queue {
		w.take(m)
	}
	w.taken()
	left := !w.flushNow()
	c.mu.Lock()
	if c.left = left; !left {
		c.writing = false
	}
	more := left || len(c.queue) > 0 || len(c.urgent) > 0
	c.mu.Unlock()
	if more {
		c.poke()
	}
}

func sizeOf(queue []*message) (size int64) {
	for _, m := range queue {
		size += m.size
	}
	return size
}

// sendUrgent queues a tiny message in front of all others, never waits, and
// gives false where so many stand there already that the other side cannot be reading.
func (c *conn) sendUrgent(m *message) bool {
	c.mu.Lock()
	if c.stopped || len(c.urgent) >= 4096 {
		c.mu.Unlock()
		return false
	}
	c.urgent = append(c.urgent, m)
	c.mu.Unlock()
	c.poke()
	return true
}

// urgentQueued says how many urgent messages have not been taken by the writer.
func (c *conn) urgentQueued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.urgent)
}

// sendUrgentAfter queues a tiny message behind all others, and does not wait for
// room: it must not overtake the request that it is about.
func (c *conn) sendUrgentAfter(m *message) {
	c.mu.Lock()
	if !c.stopped {
		m.free = true
		c.queue = append(c.queue, m)
	}
	c.mu.Unlock()
	c.poke()
}

func (c *conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *conn) writeLoop() {
	w := &c.out
	for {
		select {
		case <-c.wake:
		case <-c.ctx.Done():
			return
		}
		c.gather()
		c.mu.Lock()
		if c.writing && !c.left {
			c.mu.Unlock()
			continue // who has the turn wakes this one if there is more
		}
		c.writing, c.left = true, false
		w.takeLocked()
		c.mu.Unlock()
		w.addUrgent()
		for i, m := range w.queue {
			w.queue[i] = nil
			w.take(m)
			if w.size >= writeBatch || len(w.bufs) >= maxParts {
				w.flush()
				// Whatever became urgent meanwhile does not wait for the rest.
				c.mu.Lock()
				w.urgent, c.urgent = c.urgent, w.urgent
				c.mu.Unlock()
				w.addUrgent()
			}
		}
		w.taken()
		w.flush()
		if w.err != nil {
			c.close(w.err)
			return
		}
		c.mu.Lock()
		c.writing = false
		c.mu.Unlock()
	}
}

// gather lets what is ready to run go first, as long as more comes of it, a few times at most: it
// may have something to send, too. What goes together costs one system call here and one on the
// other side.
func (c *conn) gather() {
	for i, before := 0, -1; i < maxYields; i++ {
		c.mu.Lock()
		n := len(c.queue)
		c.mu.Unlock()
		if n == before {
			return
		}
		before = n
		runtime.Gosched()
	}
}

// batchWriter gathers messages for one write: small parts are copied together,
// large ones go out from where they are.
type batchWriter struct {
	c             *conn
	queue, urgent []*message // what is being gathered
	bufs          net.Buffers
	scratch       []byte
	from          int // scratch[from:] is not in bufs yet
	size          int
	frames        uint64
	owed          int64 // room to give back when written
	err           error
}

// takeLocked takes what is queued. Its caller has the turn, and the connection's lock.
func (w *batchWriter) takeLocked() {
	w.queue, w.c.queue = w.c.queue, w.queue
	w.urgent, w.c.urgent = w.c.urgent, w.urgent
}

// addUrgent adds the urgent messages that were taken.
func (w *batchWriter) addUrgent() {
	for _, m := range w.urgent {
		w.add(m)
	}
	clear(w.urgent)
	w.urgent = w.urgent[:0]
}

// taken ends takeLocked: all that was queued is added.
func (w *batchWriter) taken() {
	clear(w.queue)
	if w.queue = w.queue[:0]; cap(w.queue) > 4096 {
		w.queue = nil
	}
}

// take adds m, unless it was dropped.
func (w *batchWriter) take(m *message) {
	if m.state.CompareAndSwap(msgQueued, msgWriting) {
		w.add(m)
	}
	if !m.free {
		w.owed += m.room()
	}
}

func (w *batchWriter) add(m *message) {
	w.frames++
	for _, p := range m.parts {
		w.size += len(p)
		if len(p) < smallPart {
			if len(w.scratch)+len(p) > cap(w.scratch) {
				w.seal()
				// bufs still point into the old one: leave it to the collector.
				w.scratch, w.from = make([]byte, 0, 64<<10), 0
			}
			w.scratch = append(w.scratch, p...)
			continue
		}
		w.seal()
		for len(p) > writeBatch {
			w.bufs = append(w.bufs, p[:writeBatch:writeBatch])
			p = p[writeBatch:]
		}
		w.bufs = append(w.bufs, p)
	}
}

func (w *batchWriter) seal() {
	if len(w.scratch) > w.from {
		w.bufs = append(w.bufs, w.scratch[w.from:len(w.scratch):len(w.scratch)])
		w.from = len(w.scratch)
	}
}

func (w *batchWriter) flush() {
	w.seal()
	bufs := w.bufs
	for len(bufs) > 0 && w.err == nil {
		// Bounded pieces, so that progress is seen while a very large message is on its way.
		n, size := 0, 0
		for n < len(bufs) && n < maxParts && (n == 0 || size+len(bufs[n]) <= writeBatch) {
			size += len(bufs[n])
			n++
		}
		piece := bufs[:n:n]
		bufs = bufs[n:]
		// The error is of no interest: a connection without deadlines is closed by the keepalive.
		_ = w.c.nc.SetWriteDeadline(time.Now().Add(writeStall))
		var written int64
		written, w.err = writeParts(w.c.nc, piece)
		w.wrote(written)
	}
	w.done()
}

// flushNow writes what needs no waiting, and says whether that was all.
func (w *batchWriter) flushNow() bool {
	w.seal()
	if len(w.bufs) > 0 {
		var n int
		n, w.err = w.c.now(w.bufs)
		w.wrote(int64(n))
		rest := w.bufs
		for len(rest) > 0 && n >= len(rest[0]) {
			n -= len(rest[0])
			rest = rest[1:]
		}
		if len(rest) > 0 {
			rest[0] = rest[0][n:]
			w.bufs = append(w.bufs[:0], rest...)
			return false
		}
	}
	w.done()
	return true
}

// wrote notes what the kernel has taken.
func (w *batchWriter) wrote(bytes int64) {
	if bytes > 0 {
		w.c.lastWrite.Store(w.c.base.Now())
		w.c.base.stats.bytesOut.Add(uint64(bytes))
		w.c.base.stats.writes.Add(1)
	}
}

// done begins anew.
func (w *batchWriter) done() {
	w.c.base.stats.framesOut.Add(w.frames)
	if w.owed > 0 {
		w.c.room.Release(w.owed)
	}
	clear(w.bufs[:cap(w.bufs)])
	w.bufs, w.scratch, w.from, w.size, w.frames, w.owed = w.bufs[:0], w.scratch[:0], 0, 0, 0, 0
}
