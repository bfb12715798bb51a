package commands

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

// A group's life on the command line: what one has read the next one does not read again, and an
// operator sets it back.
func TestGroupCommands(t *testing.T) {
	c := harness.Shared(t)
	bin := program(t, "trimaran")
	shell := cli(c)
	topic, group := harness.Topic("grouped"), harness.Topic("readers")
	shell.ok(t, bin, "topic", "create", topic, "--partitions", "3", "--replication-factor", "3")
	known(t, c, topic, 3)
	var lines strings.Builder
	for i := range 300 {
		fmt.Fprintf(&lines, "key%d:event %d\n", i, i)
	}
	writer := shell
	writer.stdin = lines.String()
	writer.ok(t, bin, "produce", topic, "--key-separator", ":")
	count := func(out string) int { return strings.Count(out, "event ") }
	// What the output did not take is not committed.
	if _, err := os.Stat("/dev/full"); err == nil {
		r := shell.run(t, "sh", "-c", `exec "$0" "$@" >/dev/full`, bin, "consume", topic, "--group", group, "--max-messages", "100")
		if r.code == 0 || strings.Count(r.err, "no space left") != 1 {
			t.Errorf("into a full device: code %d, %s", r.code, r.err)
		}
	}
	if n := count(shell.ok(t, bin, "consume", topic, "--group", group, "--max-messages", "100")); n != 100 {
		t.Errorf("%d records came first", n)
	}
	if n := count(shell.ok(t, bin, "consume", topic, "--group", group)); n != 200 {
		t.Errorf("%d records came then", n)
	}
	type described struct {
		State   string `json:"state"`
		Lag     int64  `json:"lag"`
		Offsets []struct {
			Committed int64 `json:"committed"`
			End       int64 `json:"log_end"`
		} `json:"offsets"`
	}
	describe := func() (d described) {
		if err := json.Unmarshal([]byte(shell.ok(t, bin, "group", "describe", group, "--json")), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := describe(); d.State != "Empty" || d.Lag != 0 || len(d.Offsets) != 3 {
		t.Errorf("%+v", d)
	}
	contains(t, "group list", shell.ok(t, bin, "group", "list"), group, "Empty")
	shell.ok(t, bin, "group", "reset-offsets", group, "--topic", topic, "--to-earliest")
	if d := describe(); d.Lag != 0 {
		t.Errorf("without --execute: %+v", d)
	}
	shell.ok(t, bin, "group", "reset-offsets", group, "--topic", topic, "--to-earliest", "--execute")
	if d := describe(); d.Lag != 300 {
		t.Errorf("set back to the start: %+v", d)
	}
	shell.ok(t, bin, "group", "reset-offsets", group, "--topic", topic, "--to-offset", "1000000", "--execute")
	var shifted []struct{ Before, After int64 }
	if err := json.Unmarshal([]byte(shell.ok(t, bin, "group", "reset-offsets", group, "--topic", topic, "--shift-by", "9223372036854775807", "--json")), &shifted); err != nil || len(shifted) != 3 {
		t.Errorf("%+v, %v", shifted, err)
	}
	for _, s := range shifted {
		if s.After != s.Before {
			t.Errorf("from its end on a group is shifted from %d to %d", s.Before, s.After)
		}
	}
	shell.ok(t, bin, "group", "reset-offsets", group, "--topic", topic+":0,1,2", "--shift-by", "-10", "--execute")
	if n := count(shell.ok(t, bin, "consume", topic, "--group", group)); n != 30 {
		t.Errorf("%d records came after the offsets were shifted", n)
	}
	shell.ok(t, bin, "group", "delete", group)
	if r := shell.run(t, bin, "group", "describe", group); r.code == 0 {
		t.Errorf("a deleted group is described: %s", r.out)
	}
	if r := shell.run(t, bin, "group", "reset-offsets", group, "--topic", topic); r.code == 0 {
		t.Error("offsets are reset to nowhere")
	}
}
