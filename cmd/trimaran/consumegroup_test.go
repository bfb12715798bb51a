package main

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// fails is an output that takes nothing.
type fails struct{ err error }

func (f fails) Write([]byte) (int, error) { return 0, f.err }

// What a member could not print it does not commit, and it leaves the group, so that the next one
// is let in at once.
func TestAGroupLosesNothingThatCouldNotBePrinted(t *testing.T) {
	_, addr, _ := oneNode(t)
	brokers := []string{"--brokers", addr}
	command(t, 0, "one\ntwo\n", append(brokers, "produce", "lines")...)
	consume := append(brokers, "consume", "lines", "--group", "readers", "--max-messages", "2")
	for _, full := range []struct {
		err  error
		code int
		says string
	}{
		{errors.New("no space"), 1, "trimaran consume: no space\n"},
		{&fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}, 141, ""},
	} {
		var errOut bytes.Buffer
		if got := run(consume, strings.NewReader(""), fails{full.err}, &errOut); got != full.code || errOut.String() != full.says {
			t.Errorf("%v: exit code %d, %q", full.err, got, errOut.String())
		}
	}
	if out, _ := command(t, 0, "", consume...); out != "one\ntwo\n" {
		t.Errorf("the next member gets %q", out)
	}
}

func TestAGroupIsNotMadeForATopicThatIsNotThere(t *testing.T) {
	_, addr, _ := oneNode(t)
	_, says := command(t, 1, "", "consume", "nothing", "--group", "readers", "--brokers", addr)
	if !strings.Contains(says, "'trimaran topic list'") {
		t.Errorf("it says %q", says)
	}
	if out, _ := command(t, 0, "", "group", "list", "--json", "--brokers", addr); out != "[]\n" {
		t.Errorf("groups: %s", out)
	}
}
