package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/backup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway"
)

// hostile steers a terminal in every way, forges a line, breaks a table and is no UTF-8.
const hostile = "a\x1b[2J\x1b]0;title\x07\u009b2J\u202e\u2066\u200b\x7f\r\nFORGED\t\xff\xfe"

// fill sets everything in a value that can hold text to hostile, and has one element in every list.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.String || v.Type().Elem().Kind() == reflect.Struct {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(hostile))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() && v.Type().Field(i).Name != "UnknownTags" {
				fill(f)
			}
		}
	}
}

// hostileBroker answers every request, with hostile text wherever there can be text.
func hostileBroker(t *testing.T) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	var open sync.Map
	t.Cleanup(func() {
		l.Close()
		open.Range(func(conn, _ any) bool { conn.(net.Conn).Close(); return true })
		conns.Wait()
	})
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(conn, true)
			conns.Go(func() {
				defer conn.Close()
				for {
					var size [4]byte
					if _, err := io.ReadFull(conn, size[:]); err != nil {
						return
					}
					frame := make([]byte, binary.BigEndian.Uint32(size[:]))
					if _, err := io.ReadFull(conn, frame); err != nil {
						return
					}
					body := hostileAnswer(l.Addr().String(), frame)
					out := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
					if _, err := conn.Write(append(out, body...)); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

func hostileAnswer(addr string, frame []byte) []byte {
	key, version := int16(binary.BigEndian.Uint16(frame)), int16(binary.BigEndian.Uint16(frame[2:]))
	out := append([]byte(nil), frame[4:8]...)
	own := func(answer any) []byte {
		fill(reflect.ValueOf(answer).Elem())
		if a, ok := answer.(*gateway.TokenAnswer); ok && bytes.Contains(frame, []byte(`"list`)) {
			a.Error = "" // lists are shown
		}
		text, err := json.Marshal(answer)
		if err != nil {
			panic(err)
		}
		out = append(out, 0, 0)
		return append(binary.BigEndian.AppendUint32(out, uint32(len(text))), text...)
	}
	switch uint16(key) {
	case statusKey:
		return own(new(admin.Status))
	case replicaCheckKey:
		return own(new(admin.PartitionCheck))
	case administerKey:
		return own(new(admin.Answer))
	case gateway.TokenKey:
		return own(new(gateway.TokenAnswer))
	case backupKey:
		return own(new(admin.BackupAnswer))
	}
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	resp := req.ResponseKind()
	switch resp := resp.(type) {
	case *kmsg.ApiVersionsResponse:
		resp.Version = version
		for k := range int16(60) {
			if r := kmsg.RequestForKey(k); r != nil {
				resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: k, MaxVersion: r.MaxVersion()})
			}
		}
		return resp.AppendTo(out)
	default:
		fill(reflect.ValueOf(resp).Elem())
	}
	resp.SetVersion(version)
	host, portText, _ := net.SplitHostPort(addr)
	port, _ := strconv.Atoi(portText)
	switch resp := resp.(type) {
	case *kmsg.MetadataResponse:
		resp.Brokers[0].NodeID, resp.Brokers[0].Host, resp.Brokers[0].Port = 1, host, int32(port)
		resp.ControllerID, resp.Topics[0].Partitions[0].Leader, resp.ErrorCode = 1, 1, 0
		*resp.Topics[0].Topic = "events"
	case *kmsg.FindCoordinatorResponse:
		resp.NodeID, resp.Host, resp.Port = 1, host, int32(port)
		resp.Coordinators[0].NodeID, resp.Coordinators[0].Host, resp.Coordinators[0].Port = 1, host, int32(port)
	}
	if resp.IsFlexible() {
		out = append(out, 0)
	}
	return resp.AppendTo(out)
}

// harmful names the first character that should not come to a terminal; "" if there is none.
func harmful(text string) string {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd") || r != '\n' && r != '\t' && !strconv.IsGraphic(r) {
			return strconv.QuoteRune(r)
		}
	}
	return ""
}

// hostileStore gives a folder with backups by somebody who means harm: one whose manifest is good,
// and one whose manifest is not.
func hostileStore(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	const id = "20260131T120000.000Z-0123abcd"
	text, err := json.Marshal(backup.Manifest{
		Format: 1, ID: id, ClusterID: hostile, Finished: 1, Patterns: []string{hostile}, Security: admin.CatalogSecurity{Credentials: []fsm.Credential{{User: hostile}}},
		Topics: []backup.Topic{{
			Name: "events", ID: fsm.TopicID{1}, ReplicationFactor: 1, Configs: map[string]string{hostile: hostile},
			Partitions: []backup.Partition{{End: 1, Objects: []backup.Object{{Next: 1, Bytes: 100, SHA256: strings.Repeat("a", 64)}}}},
		}},
		Groups: []backup.Group{{ID: hostile, Offsets: []backup.GroupOffset{{Topic: "events"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"cluster.json":                               `{"format":1,"cluster_id":"x"}`,
		"backups/" + id + ".json":                    fmt.Sprintf("trimaran-backup 1 %x\n%s", sha256.Sum256(text), text),
		"backups/20260131T110000.000Z-0123abcd.json": "trimaran-backup " + hostile,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// leaves gives all commands that do something, as words.
func leaves(cmd *cobra.Command, words []string) (all [][]string) {
	if !cmd.HasSubCommands() {
		return [][]string{words}
	}
	for _, sub := range cmd.Commands() {
		all = append(all, leaves(sub, append(words[:len(words):len(words)], sub.Name()))...)
	}
	return all
}

// TestNoCommandLetsHostileTextReachTheTerminal: whatever a client called itself or a server says.
func TestNoCommandLetsHostileTextReachTheTerminal(t *testing.T) {
	addr := hostileBroker(t)
	store := "file://" + hostileStore(t)
	further := map[string][][]string{
		"backup create": {{"--to", store}, {"--to", "file:///" + hostile}, {"--to", hostile}}, "backup list": {{"--from", store}, {"--from", store, "--json"}},
		"backup verify":  {{"--from", store}, {"--from", store, "--all"}, {"--from", store, "--backup", hostile}, {"--from", store, "--before", hostile}},
		"backup restore": {{"--from", store}, {"--from", store, "--topic", hostile + "=" + hostile}}, "backup compare": {{"--from", store}}, "backup prune": {{"--from", store}},
		"group list": {{}, {"--json"}}, "group describe": {{hostile}, {hostile, "--json"}}, "group delete": {{hostile}},
		"group reset-offsets": {{hostile, "--topic", "events", "--to-earliest"}, {hostile, "--topic", hostile, "--to-offset", "0"}},
		"topic list":          {{}, {"--json"}}, "topic describe": {{}, {hostile}, {"events", "--json"}}, "topic create": {{hostile}, {"events"}},
		"topic delete": {{hostile}, {"events"}}, "topic add-partitions": {{hostile, "--partitions", "3"}, {"events", "--partitions", "3"}}, "topic delete-records": {{hostile, "--before", "1"}, {"events", "--before", "1"}},
		"topic alter":    {{hostile, "--replication-factor", "3"}, {"events", "--config", "a=" + hostile}},
		"cluster status": {{}, {"--json"}}, "cluster verify": {{"events"}, {hostile}, {"events", "--json"}},
		"node list": {{}, {"--json"}}, "node drain": {{hostile}}, "node decommission": {{hostile}}, "node replace": {{hostile, "n2"}},
		"produce": {{"events"}, {hostile}, {"events", "--json"}}, "consume": {{hostile}, {"events", "--json"}},
		"cert ca": {{hostile}}, "cert node": {{hostile}}, "cert client": {{hostile}},
		"user create": {{hostile}}, "user password": {{hostile}}, "user delete": {{hostile}}, "user list": {{}, {"--json"}},
		"acl list": {{}, {"--json"}}, "acl add": {{"--principal", "User:a", "--topic", hostile, "--operation", "read"}}, "acl remove": {{"--principal", "User:" + hostile}},
		"transaction list": {{}, {"--json"}}, "transaction describe": {{hostile}, {hostile, "--json"}},
		"transaction abort":        {{"--topic", hostile, "--partition", "0", "--start-offset", "0"}},
		"transaction find-hanging": {{}, {"--json"}},
		"token create":             {{"--read", hostile}}, "token revoke": {{hostile}, {"--principal", "User:" + hostile}},
		"token list": {{}, {"--json"}}, "token list-keys": {{}, {"--json"}}, "token rotate-keys": {{}, {"--at-once"}},
		"log dump": {{hostile}}, "log verify": {{hostile}}, "version": {{}},
		"recover survey": {{"--data", hostile}},
	}
	unreached := map[string]bool{"serve": true, "dev": true} // they run for long: package logs
	for _, words := range leaves(newRoot(), nil) {
		name := strings.Join(words, " ")
		if unreached[name] || words[0] == "help" || words[0] == "completion" {
			continue
		}
		tries, ok := further[name]
		if !ok {
			t.Errorf("no try for %q", name)
		}
		for _, more := range tries {
			args := append(words[:len(words):len(words)], more...)
			onStore := name == "backup list" || name == "backup verify" || name == "backup prune"
			if words[0] != "log" && words[0] != "recover" && words[0] != "cert" && words[0] != "version" && !onStore {
				args = append(args, "--brokers", addr, "--timeout", "1s")
			}
			var out, errOut bytes.Buffer
			code := run(args, strings.NewReader("a\n"), &out, &errOut)
			for what, text := range map[string]string{"output": out.String(), "error output": errOut.String()} {
				if c := harmful(text); c != "" {
					t.Errorf("%q: its %s has %s: %q", args, what, c, text)
				}
			}
			for line := range strings.Lines(out.String() + errOut.String()) {
				if strings.HasPrefix(line, "FORGED") {
					t.Errorf("%q: a line is forged: %q", args, line)
				}
			}
			t.Logf("%d %q\n%s%s", code, args, out.String(), errOut.String())
		}
	}
}

// TestTablesKeepTheirColumns: whatever is in a cell.
func TestTablesKeepTheirColumns(t *testing.T) {
	var out bytes.Buffer
	rows := [][]string{{"GROUP", "STATE"}, {"\xff", "Empty"}, {"a\tb\nc", "Stable"}, {"plain", "Dead"}}
	if err := printTable(&out, rows); err != nil {
		t.Fatal(err)
	}
	want := "GROUP      STATE\n\"\\xff\"     Empty\n\"a\\tb\\nc\"  Stable\nplain      Dead\n"
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}

// TestGroupsOfAnyName: as a real node has them. JSON says exactly what they are.
func TestGroupsOfAnyName(t *testing.T) {
	_, addr, _ := oneNode(t)
	const id = "g\x1b[2J\xff"
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ClientID("c"), kgo.MaxVersions(kversion.V2_8_0()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation = id, -1
	command(t, 0, "", "topic", "create", "events", "--brokers", addr)
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "events", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 0}}}}
	resp, err := cl.Request(context.Background(), commit)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("commit: %d", code)
	}
	if out, _ := command(t, 0, "", "group", "list", "--brokers", addr); !strings.Contains(out, `"g\x1b[2J\xff"`) {
		t.Errorf("group list: %q", out)
	}
	for _, args := range [][]string{{"group", "list"}, {"group", "describe", id}} {
		out, _ := command(t, 0, "", append(args, "--json", "--brokers", addr)...)
		if exact := base64.StdEncoding.EncodeToString([]byte(id)); !strings.Contains(out, `"group_base64": "`+exact+`"`) {
			t.Errorf("%q does not say what the group is called:\n%s", args, out)
		}
	}
	command(t, 0, "", "group", "delete", id, "--brokers", addr)
}

// TestRecordsOnATerminal: what could steer it is escaped there, and nowhere else.
func TestRecordsOnATerminal(t *testing.T) {
	r := &kgo.Record{Key: []byte("k\x1b[2J"), Value: []byte("line\n\tü\xff\u009b")}
	for escape, want := range map[bool]string{
		true:  "k\\u001b[2J line\n\tü\\xff\\u009b\x00",
		false: "k\x1b[2J line\n\tü\xff\u009b\x00",
	} {
		format, err := parseFormat(`%k %v\0`, escape)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(format(nil, r)); got != want {
			t.Errorf("escape %v: %q, want %q", escape, got, want)
		}
	}
}
