package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

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

// kafkaServer answers requests of Kafka's as answer says, which may change what it is given.
func kafkaServer(t *testing.T, answer func(req kmsg.Request, resp kmsg.Response)) broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	serve := func(conn net.Conn) error {
		defer conn.Close()
		for {
			var size [4]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return err
			}
			body := make([]byte, binary.BigEndian.Uint32(size[:]))
			if _, err := io.ReadFull(conn, body); err != nil {
				return err
			}
			from := kbin.Reader{Src: body}
			key, version, correlation := from.Int16(), from.Int16(), from.Int32()
			from.NullableString() // the client's id
			req := kmsg.RequestForKey(key)
			if req.SetVersion(version); req.IsFlexible() {
				kmsg.SkipTags(&from)
			}
			if err := req.ReadFrom(from.Src); err != nil {
				return err
			}
			resp := req.ResponseKind()
			answer(req, resp)
			out := binary.BigEndian.AppendUint32(nil, uint32(correlation))
			if resp.IsFlexible() && key != int16(kmsg.ApiVersions) {
				out = append(out, 0)
			}
			out = resp.AppendTo(out)
			if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(out))), out...)); err != nil {
				return err
			}
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = serve(conn) }()
		}
	}()
	return broker{scheme: "tcp", addr: l.Addr().String()}
}

// A group of which a coordinator says nothing, or that it has an error, is not one without offsets:
// it would be missing in the backup. It is asked again, and each group is in what comes of that
// once.
func TestAGroupWithoutAnAnswerIsAnError(t *testing.T) {
	// more says what becomes of group b at a try; false: it is left out.
	for name, test := range map[string]struct {
		more func(try int64, b *kmsg.OffsetFetchResponseGroup) bool
		err  string
	}{
		"left out":      {func(int64, *kmsg.OffsetFetchResponseGroup) bool { return false }, `group "b": no answer`},
		"left out once": {func(try int64, _ *kmsg.OffsetFetchResponseGroup) bool { return try > 1 }, ""},
		"an error of one offset": {func(_ int64, b *kmsg.OffsetFetchResponseGroup) bool {
			b.Topics[0].Partitions[0].ErrorCode = kerr.UnstableOffsetCommit.Code
			return true
		}, "UNSTABLE_OFFSET_COMMIT"},
		"an error of the group": {func(_ int64, b *kmsg.OffsetFetchResponseGroup) bool {
			b.ErrorCode, b.Topics = kerr.GroupAuthorizationFailed.Code, nil
			return true
		}, "GROUP_AUTHORIZATION_FAILED"},
	} {
		var tries atomic.Int64
		var one broker
		one = kafkaServer(t, func(req kmsg.Request, resp kmsg.Response) {
			host, port := "127.0.0.1", int32(0)
			if _, p, err := net.SplitHostPort(one.addr); err == nil {
				n, _ := strconv.Atoi(p)
				port = int32(n)
			}
			switch resp := resp.(type) {
			case *kmsg.ApiVersionsResponse:
				for key, most := range map[int16]int16{3: 9, 9: 8, 10: 4, 16: 4, 18: 3} {
					resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: key, MaxVersion: most})
				}
			case *kmsg.MetadataResponse:
				resp.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: host, Port: port}}
				resp.ControllerID = 1
			case *kmsg.FindCoordinatorResponse:
				for _, key := range req.(*kmsg.FindCoordinatorRequest).CoordinatorKeys {
					resp.Coordinators = append(resp.Coordinators, kmsg.FindCoordinatorResponseCoordinator{Key: key, NodeID: 1, Host: host, Port: port})
				}
			case *kmsg.ListGroupsResponse:
				resp.Groups = []kmsg.ListGroupsResponseGroup{{Group: "a", ProtocolType: "consumer"}, {Group: "b", ProtocolType: "consumer"}}
			case *kmsg.OffsetFetchResponse:
				try := tries.Add(1)
				for _, asked := range req.(*kmsg.OffsetFetchRequest).Groups {
					g := kmsg.OffsetFetchResponseGroup{Group: asked.Group, Topics: []kmsg.OffsetFetchResponseGroupTopic{{
						Topic: "t", Partitions: []kmsg.OffsetFetchResponseGroupTopicPartition{{Offset: 7, LeaderEpoch: -1}},
					}}}
					if g.Group == "a" || test.more(try, &g) {
						resp.Groups = append(resp.Groups, g)
					}
				}
			}
		})
		c, err := clusterForBackup(&brokers{list: []broker{one}}, 3*ownRetryPause)
		if err != nil {
			t.Fatal(err)
		}
		groups, err := c.Groups(t.Context())
		c.close()
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v, want %q", name, err, test.err)
			}
			continue
		}
		var ids []string
		for _, g := range groups {
			ids = append(ids, g.ID)
			if len(g.Offsets) != 1 || g.Offsets[0].Offset != 7 {
				t.Errorf("%s: %+v", name, g)
			}
		}
		if err != nil || !slices.Equal(ids, []string{"a", "b"}) {
			t.Errorf("%s: groups %v, %v", name, ids, err)
		}
	}
}
