package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/backup"
	"github.com/trimaran-io/trimaran/fsm"
)

// ownServer answers requests of Trimaran's own API with one JSON text each, and counts them. "":
// it takes connections and answers nothing.
func ownServer(t *testing.T, text string) (one broker, asked *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked = &atomic.Int64{}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					var size [4]byte
					if _, err := io.ReadFull(conn, size[:]); err != nil {
						return
					}
					request := make([]byte, binary.BigEndian.Uint32(size[:]))
					if _, err := io.ReadFull(conn, request); err != nil {
						return
					}
					asked.Add(1)
					if text == "" {
						continue
					}
					answer := binary.BigEndian.AppendUint32(nil, uint32(4+2+4+len(text)))
					answer = append(answer, 0, 0, 0, 1, 0, 0)
					answer = append(binary.BigEndian.AppendUint32(answer, uint32(len(text))), text...)
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return broker{scheme: "tcp", addr: l.Addr().String()}, asked
}

// Where commits cannot be held now, that is said at once: producers wait for each try. All else is
// asked again.
func TestAHoldIsAskedForOnce(t *testing.T) {
	one, asked := ownServer(t, `{"error":"a transaction has not reached all","retriable":true}`)
	b := &brokers{list: []broker{one}}
	c := &backupCluster{b: b, own: &ownCalls{b: b}, patience: 2*ownRetryPause + ownRetryPause/2}
	defer c.own.close()
	if _, err := c.ask(t.Context(), admin.BackupRequest{Op: admin.HoldCommits}, nil); err == nil || !strings.Contains(err.Error(), "has not reached all") {
		t.Error(err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("commits were to be held %d times", n)
	}
	if _, err := c.ask(t.Context(), admin.BackupRequest{Op: admin.BackupCatalog}, nil); err == nil {
		t.Error("no error")
	}
	if n := asked.Load(); n < 3 {
		t.Errorf("the catalog was asked for %d times", n-1)
	}
}

// A cluster with nodes that do not know how is not asked to hold commits.
func TestACommitIsNotHeldAtNodesOfBefore(t *testing.T) {
	text, err := json.Marshal(admin.BackupAnswer{Catalog: &admin.CatalogCopy{ClusterID: "one", FeatureLevel: fsm.LevelHolds - 1}})
	if err != nil {
		t.Fatal(err)
	}
	one, asked := ownServer(t, string(text))
	b := &brokers{list: []broker{one}}
	c := &backupCluster{b: b, own: &ownCalls{b: b}, patience: time.Minute}
	defer c.own.close()
	if _, err := c.Hold(t.Context()); !errors.Is(err, backup.ErrNeverHeld) || asked.Load() != 1 {
		t.Errorf("%v, after %d requests", err, asked.Load())
	}
}

// A node that is stopped costs its turn once.
func TestWhoAnsweredIsAskedFirst(t *testing.T) {
	stopped, vain := ownServer(t, "")
	answers, _ := ownServer(t, `{}`)
	b := &brokers{list: []broker{stopped, answers}}
	for range 3 {
		own := &ownCalls{b: b} // with no connection that is there
		ctx, cancel := context.WithTimeout(t.Context(), 3*leastTurn)
		_, err := own.ask(ctx, backupKey, []byte("asked"))
		cancel()
		own.close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := vain.Load(); n != 1 {
		t.Errorf("a node that does not answer was asked %d times", n)
	}
	if order := slices.Collect(b.inTurn(3)); !slices.Equal(order, []int{1, 2, 0}) {
		t.Errorf("brokers are asked in the order %v", order)
	}
}

// A leader epoch that a node has not heard is asked for again, and not for ever.
func TestAnEpochThatIsNotKnown(t *testing.T) {
	c := &backupCluster{patience: time.Minute}
	tries, asked := epochTries, 0
	err := c.again(t.Context(), [16]byte{}, func(context.Context) error {
		asked++
		return knownEpoch(-1, &tries)
	})
	if err != nil || asked != epochTries+1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if tries = epochTries; knownEpoch(0, &tries) != nil || !errors.Is(knownEpoch(-1, &tries), kerr.NotLeaderForPartition) {
		t.Error("epoch 0 is known, and -1 is not")
	}
}
