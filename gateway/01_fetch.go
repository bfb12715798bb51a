package gateway

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Fetch, versions 0 to 18.
//
// Records are given as message sets of magic 0 in versions 0 and 1, of magic 1 in
// 2 and 3, and as the record batches that are stored from 4 on. A batch with zstd
// is UNSUPPORTED_COMPRESSION_TYPE below version 10 (KIP-110). From 9 on the client
// may say which leader epoch it knows (KIP-320), from 13 on topics have ids instead
// of names (KIP-516).
//
// From 4 on there are isolation levels (KIP-98). One that reads committed records gets
// what is below the last stable offset, waits for that, and is told which transactions
// were aborted, in the order of their first offsets; leaving their records out is its
// affair. One that does not is told the last stable offset, too. Markers of transactions
// stand among the batches. Versions below 4 see all records and no markers.
//
// Kept: min_bytes counts over all partitions, max_wait_ms bounds the wait for
// them (here to 5 minutes), max_bytes bounds each partition. Up to version 2 the
// last message may be cut there, as 0.8 cuts it; from 3 on there is a max_bytes for
// the whole answer, nothing is cut, and the first batch comes whatever its size
// (KIP-74). min_bytes or max_wait_ms of 0 or less, and an error in any partition,
// answer at once, and so does, from version 3 on, something that is there and has no
// place. An answer with nothing but KAFKA_STORAGE_ERROR waits for storagePause, if
// nothing comes: many clients ask again at once, for as long as a store is down. The
// high watermark is -1 where there is an error. A partition named twice is answered
// once, as it was named last (in 0.8 the request is a map). A negative max_bytes is
// INVALID_FETCH_SIZE.
//
// A wait is woken by the commit it waits for. A partition that cannot be read in
// readGrace is answered NOT_LEADER_FOR_PARTITION and holds up nothing else.
//
// Left out: fetch sessions are declined as KIP-227 allows, with session id 0; who
// goes on with one is told FETCH_SESSION_ID_NOT_FOUND. The replica id, the rack and
// the last fetched epoch are not looked at, since replicas do not fetch over this
// protocol. Nothing is said of other leaders (KIP-951) or replicas: the cluster's
// one broker is it. An answer holds at most the largest request's size of records;
// partitions for which nothing is left come back empty.
const (
	// readGrace is what reading may take beyond the client's max_wait_ms: asking
	// another node takes a moment.
	readGrace = time.Second
	// leanRead is what a partition may still be read with when the node's memory
	// for answers is used up.
	leanRead = 64 << 10
	// storagePause is how long after its beginning a fetch is answered at the earliest that has
	// no records, and KAFKA_STORAGE_ERROR for some partition; but for its max_wait_ms at most.
	storagePause = 100 * time.Millisecond
	// parallelReads bounds the reads of one fetch that are under way at once.
	parallelReads = 64
)

// Records is where fetches find records, and DeleteRecords ends them.
type Records interface {
	// Read never waits for records. maxBytes bounds the answer but for one whole batch.
	Read(ctx context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int, isolation fsm.Isolation) (fsm.Slice, error)
	// Await returns nil when a record at offset from or above is committed and may be read at that
	// isolation level, ctx.Err() when ctx ends first.
	Await(ctx context.Context, p fsm.PartitionID, from fsm.Offset, isolation fsm.Isolation) error
	// DeleteRecords makes before, -1 for the high watermark, the first offset that can
	// be read, and gives the log start offset afterwards.
	DeleteRecords(ctx context.Context, p fsm.PartitionID, before fsm.Offset) (low fsm.Offset, err error)
}

// fetchPart is one partition of a fetch.
type fetchPart struct {
	id       fsm.PartitionID
	topic    string
	maxBytes int
	out      *kmsg.FetchResponseTopicPartition

	from    fsm.Offset // what the client asks for
	granted int        // bytes that this read may give
	held    int64      // bytes of the budget for answers
	// heldAborted are those for the aborted transactions in out.
	heldAborted int64
	got         reading // what is still to become a message set
	whole       int     // bytes of the first message of got, if it is larger than granted; else 0
	more        []byte  // what this read gave, to come behind what out has already
	// aborted are those of more, but for those of what out has already
	aborted []fsm.AbortedTransaction
	done    []func()   // to be called when nobody uses what reads gave any more
	joined  bool       // out's records are in memory of their own
	next    fsm.Offset // where more would come; -1: nothing more fits
	// passed is the offset below which there is nothing from from on that the version can see; 0:
	// not known. stopped: what comes there is left for the next fetch.
	passed  fsm.Offset
	stopped bool
	err     error
}

// fetch is one fetch at work. One goroutine owns it but for the reads of parts,
// each of which owns its part.
type fetch struct {
	*request
	version   int16
	isolation fsm.Isolation
	parts     []*fetchPart // those that are in the catalog

	judged *fsm.Security // by which the parts were found to be the caller's

	left int  // bytes that the answer may still grow by
	have int  // bytes of records in the answer
	full bool // something that is there does not fit: nothing is waited for
}

// handleFetch lets the fetches of a connection work one after another: the answer
// of one is sent before the next one reads. They are answered in order in any
// case, and so a client that asks for much and takes nothing holds the memory of
// one answer.
func handleFetch(r *request) {
	before := r.conn.fetchSent
	sent := make(chan struct{})
	r.conn.fetchSent = sent
	r.reply.WhenSent(func() { close(sent) })
	r.background(func() {
		if before != nil {
			<-before
		}
		r.fetch()
	})
}

func (r *request) fetch() {
	req := r.body.(*kmsg.FetchRequest)
	f := &fetch{request: r, version: req.Version, isolation: fsm.Isolation(req.IsolationLevel), left: r.conn.server.cfg.MaxRequestBytes}
	if req.Version >= 3 {
		f.left = min(f.left, max(int(req.MaxBytes), 1))
	}
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	if req.Version >= 7 && req.SessionEpoch > 0 {
		resp.ErrorCode = r.note(kerr.FetchSessionIDNotFound.Code)
		r.answer(resp)
		return
	}
	f.resolve(req, resp)
	answered := false
	defer func() {
		if !answered { // a panic
			f.release()
		}
	}()
	wait := min(max(time.Duration(req.MaxWaitMillis)*time.Millisecond, 0), maxWait)
	f.read(f.parts)
	switch {
	case wait <= 0:
	case !f.satisfied(int(req.MinBytes)):
		f.await(r.began.Add(wait), int(req.MinBytes))
	case f.onlyStorageFails():
		f.await(r.began.Add(min(wait, storagePause)), 1)
	}
	f.judge()
	f.conn.passed.note(f)
	for _, p := range f.parts {
		r.conn.server.metrics.fetched(p.topic, len(p.out.RecordBatches))
		r.note(p.out.ErrorCode)
	}
	answered = true
	r.reply.WhenSent(f.release)
	if req.Version >= 4 {
		r.answerParts(fetchParts(r.header, resp))
		return
	}
	size := 64
	for i := range resp.Topics {
		size += 32 + len(resp.Topics[i].Topic)
		for j := range resp.Topics[i].Partitions {
			out := &resp.Topics[i].Partitions[j]
			size += 64 + len(out.RecordBatches)
		}
	}
	r.answerSized(resp, size)
	for _, p := range f.parts {
		p.out.RecordBatches = nil // it is in the answer's bytes now, which may wait long
	}
}

// resolve lays out the response and finds the partitions in the catalog.
func (f *fetch) resolve(req *kmsg.FetchRequest, resp *kmsg.FetchResponse) {
	s := f.conn.server
	type key struct { // a topic's name, or from version 13 on its id
		name string
		id   [16]byte
	}
	type part struct {
		topic     key
		partition int32
	}
	type place struct{ topic, partition int }
	seen := map[part]place{}
	at := map[key]int{}
	wanted := map[place]kmsg.FetchRequestTopicPartition{}
	for _, t := range req.Topics {
		topic := key{t.Topic, t.TopicID}
		i, ok := at[topic]
		if !ok {
			i = len(resp.Topics)
			at[topic] = i
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			resp.Topics = append(resp.Topics, rt)
		}
		for _, p := range t.Partitions {
			where, ok := seen[part{topic, p.Partition}]
			if !ok {
				where = place{i, len(resp.Topics[i].Partitions)}
				seen[part{topic, p.Partition}] = where
				rp := kmsg.NewFetchResponseTopicPartition()
				rp.Partition, rp.HighWatermark, rp.LastStableOffset, rp.LogStartOffset = p.Partition, -1, -1, -1
				rp.RecordBatches = []byte{}
				if req.IsolationLevel > 0 {
					rp.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
				}
				resp.Topics[i].Partitions = append(resp.Topics[i].Partitions, rp)
			}
			wanted[where] = p
		}
	}
	topics := s.catalog.Topics()
	f.judged = topics.Security()
	for i := range resp.Topics {
		topic, unknown := f.findTopic(topics, resp.Topics[i].Topic, resp.Topics[i].TopicID, req.Version >= 13)
		for j := range resp.Topics[i].Partitions {
			out, p := &resp.Topics[i].Partitions[j], wanted[place{i, j}]
			id, err := f.findPartition(topic, unknown, out.Partition, noEpoch)
			switch {
			case err != nil:
			case f.isolation != fsm.ReadUncommitted && f.isolation != fsm.ReadCommitted:
				err = errInvalidRequest
			case p.PartitionMaxBytes < 0:
				err = errFetchSize
			case p.FetchOffset < 0:
				err = outcome.ErrOffsetOutOfRange
			default:
				err = s.checkLeaderEpoch(id, p.CurrentLeaderEpoch)
			}
			if err != nil {
				out.ErrorCode = f.fail(err)
				continue
			}
			from := fsm.Offset(p.FetchOffset)
			f.parts = append(f.parts, &fetchPart{
				id: id, topic: topic.Name, maxBytes: int(p.PartitionMaxBytes), out: out, from: from, next: f.conn.passed.begin(f, id, from),
			})
		}
	}
}

// passed is where a connection's fetches of old versions go on in partitions that have nothing that
// they can see, by partition. The fetch that is at work owns it.
type passed map[fsm.PartitionID]passedOver

// passedOver says that there is nothing in [from, to).
type passedOver struct{ from, to fsm.Offset }

// maxPassed bounds the partitions that are remembered. What is forgotten is read again.
const maxPassed = 256

// begin gives the offset at which a fetch reads that asks for from.
func (m passed) begin(f *fetch, id fsm.PartitionID, from fsm.Offset) fsm.Offset {
	if over, ok := m[id]; ok && f.version < 4 && over.from == from {
		return over.to
	}
	return from
}

// note remembers what a fetch has passed over and gives nothing of.
func (m *passed) note(f *fetch) {
	if f.version >= 4 {
		return
	}
	for _, p := range f.parts {
		switch {
		case len(p.out.RecordBatches) > 0:
			delete(*m, p.id)
		case p.passed > p.from:
			if *m == nil {
				*m = passed{}
			}
			if _, known := (*m)[p.id]; !known && len(*m) >= maxPassed {
				for id := range *m {
					delete(*m, id)
					break
				}
			}
			(*m)[p.id] = passedOver{p.from, p.passed}
		}
	}
}
