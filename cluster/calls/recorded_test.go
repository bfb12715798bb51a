package calls

import (
	"bytes"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/outcome"
)

// roundTrip reads a request and its answer and writes both again.
func roundTrip[Q, A any](c *Call[Q, A]) func(payload, reply []byte) (request, answer []byte, err error) {
	return func(payload, reply []byte) (request, answer []byte, err error) {
		q, err := c.request.get(payload)
		if err != nil {
			return nil, nil, err
		}
		if request, err = c.request.put(q); err != nil {
			return nil, nil, err
		}
		content, err := DecodeReply(reply)
		if err != nil {
			return request, EncodeReply(nil, err), nil
		}
		a, err := c.Read(q, content)
		if err != nil {
			return nil, nil, err
		}
		content, err = c.answer.put(a)
		return request, EncodeReply(content, err), err
	}
}

// TestWhatOlderNodesSent is read and written as it was: nodes with programs of different age ask
// each other. What they sent was recorded on the peer link while tests of package cluster ran.
func TestWhatOlderNodesSent(t *testing.T) {
	trips := map[uint8]func(payload, reply []byte) (request, answer []byte, err error){
		Append.Kind: roundTrip(Append), AppendInLine.Kind: roundTrip(AppendInLine), Read.Kind: roundTrip(Read), Await.Kind: roundTrip(Await), ListOffsets.Kind: roundTrip(ListOffsets),
		Leader.Kind: roundTrip(Leader), Describe.Kind: roundTrip(Describe), Entries.Kind: roundTrip(Entries), Applied.Kind: roundTrip(Applied),
		Leave.Kind: roundTrip(Leave), CatalogApply.Kind: roundTrip(CatalogApply), CreateTopic.Kind: roundTrip(CreateTopic),
		CatalogIndex.Kind: roundTrip(CatalogIndex), CatalogKnown.Kind: roundTrip(CatalogKnown), Form.Kind: roundTrip(Form), Join.Kind: roundTrip(Join),
		ReplicaStatus.Kind: roundTrip(ReplicaStatus), Survey.Kind: roundTrip(Survey), Stand.Kind: roundTrip(Stand), Member.Kind: roundTrip(Member),
		OffsetForTime.Kind: roundTrip(OffsetForTime), EpochEnd.Kind: roundTrip(EpochEnd), CreatePartitions.Kind: roundTrip(CreatePartitions),
		DeleteRecords.Kind: roundTrip(DeleteRecords), Producers.Kind: roundTrip(Producers), Full.Kind: roundTrip(Full), Hash.Kind: roundTrip(Hash),
		Coordinate.Kind: roundTrip(Coordinate), EndOffsets.Kind: roundTrip(EndOffsets), CreateShards.Kind: roundTrip(CreateShards), Administer.Kind: roundTrip(Administer), AlterACLs.Kind: roundTrip(AlterACLs),
		Relay.Kind: roundTrip(Relay), Who.Kind: roundTrip(Who), Twin.Kind: roundTrip(Twin),
	}
	data, err := os.ReadFile("testdata/recorded.txt")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		parts := strings.Fields(line)
		if parts[0] == "#" {
			continue
		}
		kind, err := strconv.ParseUint(parts[0], 10, 8)
		if err != nil || len(parts) != 3 {
			t.Fatalf("line %d: %v", i+1, err)
		}
		payload, _ := hex.DecodeString(strings.TrimPrefix(parts[1], "-"))
		reply, err := hex.DecodeString(parts[2])
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		row, _ := ByKind(uint8(kind))
		trip := trips[uint8(kind)]
		if trip == nil {
			t.Fatalf("line %d: no call has number %d", i+1, kind)
		}
		request, answer, err := trip(bytes.Clone(payload), bytes.Clone(reply))
		if err != nil && outcome.Code(err) != 0 {
			t.Errorf("line %d, %s: %v", i+1, row.Name, err)
			continue
		}
		if !bytes.Equal(request, payload) {
			t.Errorf("line %d, %s: the request was\n%x and is\n%x", i+1, row.Name, payload, request)
		}
		if !bytes.Equal(answer, reply) {
			t.Errorf("line %d, %s: the answer was\n%x and is\n%x", i+1, row.Name, reply, answer)
		}
	}
}
