// Package line is the command line that all Go clients of the interop test share;
// the driver's contract.go describes it.
package line

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
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
	Login     *Login // nil: the client does not log in, and uses no TLS
}

// Login is how a client logs in, over TLS. It comes in a file, so that no password is an argument.
type Login struct {
	Mechanism, User, Password string
	Token                     string // with OAUTHBEARER
	CA                        string // file of the certificate that signs the servers'
}

// login reads the file that INTEROP_LOGIN names: lines name=value.
func login() *Login {
	name := os.Getenv("INTEROP_LOGIN")
	if name == "" {
		return nil
	}
	content, err := os.ReadFile(name)
	Must(err)
	said := map[string]string{}
	for l := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "=")
		said[name] = value
	}
	return &Login{said["mechanism"], said["user"], said["password"], said["token"], said["ca"]}
}

// TLS is the configuration of a client of Go's.
func (l *Login) TLS() *tls.Config {
	pem, err := os.ReadFile(l.CA)
	Must(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		Must(fmt.Errorf("no certificates in %s", l.CA))
	}
	return &tls.Config{RootCAs: pool}
}

// LogIn is step login: enter does something that needs a login, and refused tells the client's
// own error of a login that failed.
func LogIn(enter func() error, refused func(error) bool) {
	Say("asking")
	switch err := enter(); {
	case err == nil:
		Say("in")
	case refused(err):
		Say("refused %s", strings.Join(strings.Fields(err.Error()), " "))
	default:
		Must(err)
	}
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
	return Call{strings.Split(os.Args[1], ","), os.Args[2], os.Args[3], os.Args[4], os.Args[5], login()}
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

// Transactions hands over each transaction of stdin: do gets its records, which belong to it,
// and whether it is to be committed. What it gives is told when it is over.
func Transactions(do func(records [][2][]byte, commit bool) error) {
	var records [][2][]byte
	Records(func(key, value []byte) {
		if value != nil {
			records = append(records, [2][]byte{bytes.Clone(key), bytes.Clone(value)})
			return
		}
		commit := string(key) == "commit"
		Must(do(records, commit))
		records = nil
		if commit {
			Say("committed")
		} else {
			Say("aborted")
		}
	})
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
