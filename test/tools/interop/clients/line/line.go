// Package line is the command line that all Go clients of the interop test share;
// the driver's contract.go describes it.
package line

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Header is what every record gets: name and value.
const (
	HeaderName  = "h"
	HeaderValue = "interop"
)

// Call is what the driver asks.
type Call struct {
	Bootstrap []string
	Mode      string
	Step      string
	Topic     string
	Argument  string
}

// Old reports whether the client must talk as one of 0.8.
func (c Call) Old() bool { return c.Mode == "0.8" }

// Number gives the argument as a number.
func (c Call) Number() int {
	n, err := strconv.Atoi(c.Argument)
	Must(err)
	return n
}

// Args reads the command line.
func Args() Call {
	if len(os.Args) != 6 {
		Must(fmt.Errorf("usage: %s BOOTSTRAP MODE STEP TOPIC ARGUMENT", os.Args[0]))
	}
	return Call{strings.Split(os.Args[1], ","), os.Args[2], os.Args[3], os.Args[4], os.Args[5]}
}

// Must ends the program when something failed.
func Must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Records hands over each record of stdin.
func Records(do func(key, value []byte)) {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		l, err := in.ReadBytes('\n')
		if l = bytes.TrimSuffix(l, []byte{'\n'}); len(l) > 0 {
			key, value, _ := bytes.Cut(l, []byte{'\t'})
			do(key, value)
		}
		if err == io.EOF {
			return
		}
		Must(err)
	}
}

// Ended gives a channel that is closed when stdin ends.
func Ended() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(c)
	}()
	return c
}

var (
	mu  sync.Mutex
	out = bufio.NewWriterSize(os.Stdout, 1<<16)
)

// Print writes a record; headers is "name=value" or empty.
func Print(partition int32, offset int64, key, value []byte, headers string) {
	mu.Lock()
	defer mu.Unlock()
	fmt.Fprintf(out, "%d\t%d\t%s\t%s", partition, offset, key, value)
	if headers != "" {
		out.WriteString("\t" + headers)
	}
	out.WriteByte('\n')
}

// Say writes a line for the driver.
func Say(format string, args ...any) {
	mu.Lock()
	defer mu.Unlock()
	fmt.Fprintf(out, "# "+format+"\n", args...)
	out.Flush()
}

// Flush writes out what was printed.
func Flush() {
	mu.Lock()
	defer mu.Unlock()
	out.Flush()
}
