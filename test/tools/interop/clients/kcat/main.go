// Command kcat drives kcat, which stands for librdkafka and C, in the interop test.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/trimaran-io/trimaran/test/tools/interop/clients/line"
)

func main() {
	call := line.Args()
	// -E: kcat ends when no broker is connected, and where there is one broker to be
	// seen that is whenever its connection breaks.
	args := []string{"-E", "-b", strings.Join(call.Bootstrap, ",")}
	if l := call.Login; l != nil {
		// A file, for its arguments everybody can read.
		file, err := os.CreateTemp("", "kcat-")
		line.Must(err)
		defer os.Remove(file.Name())
		fmt.Fprintf(file, "security.protocol=SASL_SSL\nssl.ca.location=%s\nsasl.mechanisms=%s\nsasl.username=%s\nsasl.password=%s\n",
			l.CA, l.Mechanism, l.User, l.Password)
		line.Must(file.Close())
		args = append([]string{"-F", file.Name()}, args...)
	}
	format := `%p\t%o\t%k\t%s\t%h\n`
	if call.Old() {
		args = append(args, "-X", "api.version.request=false", "-X", "broker.version.fallback=0.8.2")
		format = `%p\t%o\t%k\t%s\n`
	}
	switch call.Step {
	case "login":
		login(append(args, "-L", "-m", "4"))
	case "produce":
		args = append(args, "-P", "-t", call.Topic, "-K", "\t", "-z", call.Argument, "-X", "request.required.acks=-1")
		if !call.Old() {
			args = append(args, "-H", line.HeaderName+"="+line.HeaderValue)
		}
		// kcat writes every line that it is given and fails when one is not
		// acknowledged; it does not say how many there were.
		n := 0
		in, feed := io.Pipe()
		go func() {
			out := bufio.NewWriter(feed)
			line.Records(func(key, value []byte) {
				n++
				out.Write(key)
				out.WriteByte('\t')
				out.Write(value)
				out.WriteByte('\n')
			})
			out.Flush()
			feed.Close()
		}()
		cmd := exec.Command("kcat", args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, os.Stderr, os.Stderr
		line.Must(cmd.Run())
		line.Say("produced %d", n)
	case "read":
		list, err := exec.Command("kcat", append(args, "-L")...).CombinedOutput()
		line.Must(err)
		if !bytes.Contains(list, []byte("topic \""+call.Topic+"\"")) {
			line.Must(fmt.Errorf("kcat -L does not list the topic: %s", list))
		}
		args = append(args, "-C", "-t", call.Topic, "-o", "beginning", "-c", call.Argument, "-f", format)
		cmd := exec.Command("kcat", args...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		line.Must(cmd.Run())
	case "group":
		args = append(args, "-X", "auto.offset.reset=earliest", "-u", "-f", format, "-G", call.Argument, call.Topic)
		group(args)
	default:
		line.Must(fmt.Errorf("no step %q", call.Step))
	}
}

// login lists topics. librdkafka goes on trying with a password that is wrong, and says each time
// what was wrong with it.
func login(args []string) {
	var said []byte
	line.LogIn(func() (err error) {
		said, err = exec.Command("kcat", args...).CombinedOutput()
		if err != nil {
			os.Stderr.Write(said)
			for l := range bytes.Lines(said) {
				if bytes.Contains(l, []byte("SASL authentication error")) {
					return fmt.Errorf("%s", l)
				}
			}
		}
		return err
	}, func(err error) bool { return strings.Contains(err.Error(), "SASL authentication error") })
}

// group runs kcat until stdin ends; on SIGTERM it commits and leaves.
func group(args []string) {
	cmd := exec.CommandContext(context.Background(), "kcat", args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	line.Must(err)
	line.Must(cmd.Start())
	ended := line.Ended()
	go func() {
		<-ended
		cmd.Process.Signal(syscall.SIGTERM)
	}()
	// Whole lines only: what kcat had begun when it was told to end was not committed.
	in := bufio.NewReader(out)
	for {
		l, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		os.Stdout.Write(bytes.Clone(l))
	}
	err = cmd.Wait()
	select {
	case <-ended:
	default:
		line.Must(fmt.Errorf("kcat ended by itself: %v", err))
	}
	line.Must(err)
	line.Say("closed")
}
