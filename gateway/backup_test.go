package gateway

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// backupBody is the body of a Backup request without batches.
func backupBody(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

func TestBackupRequests(t *testing.T) {
	c := &matrixCase{client: serve(t, newFake(t), nil).dial()}
	batch := prototest.Batch("x").Bytes()
	const zero = `"topic":"00000000000000000000000000000000","partition":0`
	for _, test := range []struct{ name, text, batches, want string }{
		{"the catalog", `{"op":"catalog",` + zero + `}`, "", ""},
		{"an unknown operation", `{"op":"dance",` + zero + `}`, "", "nothing that can be asked for"},
		{"batches with the wrong operation", `{"op":"catalog",` + zero + `}`, string(batch), "batches with"},
		{"a topic that is not there", `{"op":"append",` + zero + `}`, string(batch), "not known here yet"},
		{"a topic without what is to be restored", `{"op":"create",` + zero + `,"create":{"name":"a","partitions":1,"replication_factor":1}}`, "", "nothing that can be asked for"},
	} {
		code, text := c.own(int16(BackupKey), append(backupBody(test.text), test.batches...))
		var answer admin.BackupAnswer
		if err := json.Unmarshal(text, &answer); code != 0 || err != nil || (test.want == "") != (answer.Error == "") || !strings.Contains(answer.Error, test.want) {
			t.Errorf("%s: code %d, %s, %v", test.name, code, text, err)
		}
	}
}

// What is derived from passwords goes to nobody who comes in clear from beyond loopback.
func TestBackupsInClearHaveNoUsers(t *testing.T) {
	var c admin.CatalogCopy
	if err := mayTravel(&c, true); err != nil {
		t.Errorf("without users: %v", err)
	}
	c.Security.Credentials = []fsm.Credential{{User: "u", Mechanism: "SCRAM-SHA-256"}}
	if mayTravel(&c, true) == nil || mayTravel(&c, false) != nil {
		t.Error("with users it goes in clear, or not where nobody listens")
	}
}

func FuzzParseBackup(f *testing.F) {
	f.Add(backupBody(`{"op":"catalog"}`))
	f.Add(append(backupBody(`{"op":"append"}`), prototest.Batch("x").Bytes()...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, body []byte) {
		_, batches, err := parseBackup(body)
		size := 0
		for _, b := range batches {
			size += b.Size()
		}
		if err == nil && size > len(body) {
			t.Errorf("%d bytes of batches in %d", size, len(body))
		}
	})
}
