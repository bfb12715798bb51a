package main

import (
	"bytes"
	"io"
	"strings"
	"syscall"
	"testing"
)

// lines passes on what is written.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// Lines that a person types are answered one by one, and an interruption does not wait for the next
// one.
func TestProduceOfWhatIsTyped(t *testing.T) {
	_, addr, _ := oneNode(t)
	in, typed := io.Pipe()
	defer typed.Close()
	out := make(lines, 10)
	var errOut bytes.Buffer
	code := make(chan int)
	go func() {
		code <- run([]string{"produce", "events", "--print-offsets", "--brokers", addr}, in, out, &errOut)
	}()
	for i, want := range []string{"0\t0\n", "0\t1\n"} {
		if _, err := io.WriteString(typed, "line\n"); err != nil {
			t.Fatal(err)
		}
		if got := <-out; got != want {
			t.Errorf("line %d is answered with %q", i, got)
		}
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != 1 || errOut.String() != "trimaran produce: interrupted\n" {
		t.Errorf("interrupted: exit code %d, %q", got, errOut.String())
	}
}

func TestProduceSaysWhatItCouldNotPrint(t *testing.T) {
	_, addr, _ := oneNode(t)
	var errOut bytes.Buffer
	if got := run([]string{"produce", "events", "--json", "--brokers", addr}, strings.NewReader("a\n"), fails{syscall.ENOSPC}, &errOut); got != 1 || !strings.Contains(errOut.String(), "no space") {
		t.Errorf("exit code %d, %q", got, errOut.String())
	}
}
