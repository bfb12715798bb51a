package harness

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// errNotYet is for answers that are right and come too early.
var errNotYet = errors.New("not yet")

// Again has ask put its questions to a node, each time over a connection of its own, until it gives
// no error, or one after which a client would not ask again. A node that reaches no majority for a
// moment ends the connections of its clients, a partition or a coordinator may be on its way to
// another leader, and a transaction may still be ending: none of that is a fault, as long as it
// passes. What ask did when the answer was lost may have happened.
func Again(addr string, within time.Duration, ask func(w *Wire) error) error {
	var nobody *Login
	return nobody.Again(addr, within, ask)
}

// Again is the function of that name for somebody who logs in.
func (l *Login) Again(addr string, within time.Duration, ask func(w *Wire) error) error {
	var last error
	err := Eventually(within, func() bool {
		w, err := l.Dial(addr, 5*time.Second)
		if err == nil {
			err = ask(w)
			w.Close()
		}
		last = err
		return !passes(err)
	})
	if err != nil {
		return fmt.Errorf("%s, %w: %w", addr, err, last)
	}
	return last
}

// passes says whether a client asks again after an error: the end of a connection, or a code that
// says so.
func passes(err error) bool {
	var code ErrorCode
	if errors.As(err, &code) {
		return Retriable(kerr.ErrorForCode(int16(code)))
	}
	return errors.Is(err, errNotYet) || brokenOff(err)
}

// brokenOff says whether a connection has ended, or none was made, or nothing came over it in time.
func brokenOff(err error) bool {
	var broken net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &broken) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// Retriable says whether a client asks again after the error of a code, and nothing is wrong.
// CONCURRENT_TRANSACTIONS is one of these for producers, whose transaction before is being ended.
// CORRUPT_MESSAGE and KAFKA_STORAGE_ERROR are none here, although clients try again.
func Retriable(err error) bool {
	switch {
	case errors.Is(err, kerr.CorruptMessage), errors.Is(err, kerr.KafkaStorageError):
		return false
	}
	return kerr.IsRetriable(err) || errors.Is(err, kerr.ConcurrentTransactions)
}

// Taken has an operator's command run again, for as long as the cluster refuses to place replicas:
// the catalog's leader counts the nodes that it reaches, and one that has just come, or whose link
// is cut, is not among them for a moment. What the command does twice is done once.
func Taken(within time.Duration, command func() (string, error)) (out string, err error) {
	late := Eventually(within, func() bool {
		out, err = command()
		return err == nil || !strings.Contains(err.Error(), "invalid replica assignment")
	})
	if late != nil {
		err = fmt.Errorf("%w: %w", late, err)
	}
	return out, err
}

// Produce is Wire.Produce of one value, as a client that hears nothing sends it again: it may be in
// the log as often as tries says.
func Produce(addr, topic string, partition int32, value string, within time.Duration) (base int64, tries int, err error) {
	err = Again(addr, within, func(w *Wire) error {
		tries++
		base, err = w.Produce(topic, partition, -1, value)
		return err
	})
	return base, tries, err
}

// ReadToEnd reads a partition through a node, from its start until at least the given offset and
// whatever is behind it by then.
func ReadToEnd(addr, topic string, partition int32, until int64, within time.Duration) ([]Entry, error) {
	var nobody *Login
	return nobody.ReadToEnd(addr, topic, partition, until, within)
}

// ReadToEnd is the function of that name for somebody who logs in.
func (l *Login) ReadToEnd(addr, topic string, partition int32, until int64, within time.Duration) (entries []Entry, err error) {
	deadline := time.Now().Add(within)
	err = l.Again(addr, within, func(w *Wire) error {
		offsets, err := w.ListOffsets(topic, partition, -1, 1)
		switch {
		case err != nil:
			return err
		case len(offsets) != 1:
			return fmt.Errorf("the latest offset of %s-%d is %v", topic, partition, offsets)
		case offsets[0] < until:
			return fmt.Errorf("%w: the latest offset of %s-%d is %d, acknowledged up to %d", errNotYet, topic, partition, offsets[0], until)
		}
		entries, err = w.FetchAll(topic, partition, offsets[0], time.Until(deadline))
		return err
	})
	return entries, err
}
