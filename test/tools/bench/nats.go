package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// natsPrograms builds the server and the client of NATS into a folder of the cache, from the module
// in the folder nats, which pins both.
func natsPrograms() (server, client string, err error) {
	cache, err := harness.Cache()
	if err != nil {
		return "", "", err
	}
	module, bin := filepath.Join(harness.Root(), "test", "tools", "bench", "nats"), filepath.Join(cache, "nats")
	server, client = filepath.Join(bin, "nats-server"), filepath.Join(bin, "nats")
	if err := os.MkdirAll(bin, 0o777); err != nil {
		return "", "", err
	}
	return server, client, harness.Tool(module, "go", "build", "-o", bin+string(filepath.Separator), "github.com/nats-io/nats-server/v2", ".")
}

const natsConfigs = `server_name: n%d
listen: %q
jetstream { store_dir: %q, %s }
cluster { name: versus, listen: %q, routes: [%s] }
`

// startNATS runs three servers; more goes into their configuration of JetStream.
func startNATS(more string) func(*bench, string) (*running, error) {
	return func(b *bench, dir string) (*running, error) {
		server, client, err := natsPrograms()
		if err != nil {
			return nil, err
		}
		ports, err := harness.FreePortBase(0, 1, 2, 3, 4, 5)
		if err != nil {
			return nil, err
		}
		r := &running{}
		r.stop = func() { r.kill() }
		var routes, names []string
		for i := range 3 {
			routes = append(routes, strconv.Quote("nats://"+harness.Loopback(ports+3+i)))
			names = append(names, fmt.Sprintf("n%d=nats://%s", i+1, harness.Loopback(ports+i)))
		}
		for i := range 3 {
			data := filepath.Join(dir, strconv.Itoa(i+1))
			config := data + ".conf"
			text := fmt.Appendf(nil, natsConfigs, i+1, harness.Loopback(ports+i), data, more, harness.Loopback(ports+3+i), strings.Join(routes, ", "))
			if err := os.WriteFile(config, text, 0o666); err != nil {
				return r, err
			}
			p := &harness.Process{Name: "nats", Path: server, Args: []string{"-c", config}, Log: data + ".log"}
			if err := p.Start(); err != nil {
				return r, err
			}
			r.processes = append(r.processes, p)
		}
		r.nats = func(s shape, topic string) (driver, error) {
			return newNATSClient(client, dir, strings.Join(names, ","), s, topic)
		}
		// A stream can be made once the servers have found each other and agreed on a leader.
		var last error
		err = harness.Eventually(time.Minute, func() bool {
			var d driver
			if d, last = r.nats(shapes[0], "versus-"+shapes[0].topic); last == nil {
				d.close()
			}
			return last == nil
		})
		if err != nil {
			return r, fmt.Errorf("%w\n%s", last, r.processes[0].Tail(5))
		}
		fmt.Printf("  nats-server %s\n", natsVersion(server))
		return r, nil
	}
}

func natsVersion(server string) string {
	out, err := exec.Command(server, "--version").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(strings.TrimPrefix(string(out), "nats-server: "))
}

// natsClient is the program that speaks to NATS: a message is as large as the values of a batch,
// published asynchronously, with as many not acknowledged as a Kafka client has in flight.
type natsClient struct {
	shape
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	log *os.File
}

func newNATSClient(program, dir, servers string, s shape, topic string) (*natsClient, error) {
	log, err := os.Create(filepath.Join(dir, "client.log"))
	if err != nil {
		return nil, err
	}
	c := &natsClient{shape: s, log: log}
	c.cmd = exec.Command(program, "-servers", servers, "-name", topic, "-streams", strconv.Itoa(s.partitions), "-size", strconv.Itoa(c.messageSize()),
		"-conns", strconv.Itoa(max(1, s.conns)), "-inflight", strconv.Itoa(max(1, s.inFlight)), "-rate", fmt.Sprint(s.perSecond), fmt.Sprintf("-consume=%v", s.consume))
	c.cmd.Stderr = log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := c.out.ReadString('\n'); err != nil {
		c.close()
		return nil, c.failure(err)
	}
	return c, nil
}

func (c *natsClient) messageSize() int { return c.perRequest() * recordSize }

// failure says what the program wrote before it ended.
func (c *natsClient) failure(err error) error {
	b, _ := os.ReadFile(c.log.Name())
	return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(b)))
}

func (c *natsClient) close() {
	c.in.Close()
	c.cmd.Wait()
	c.log.Close()
}

func (c *natsClient) run(window time.Duration) (r result, err error) {
	if _, err := fmt.Fprintf(c.in, "run %f\n", window.Seconds()); err != nil {
		return r, c.failure(err)
	}
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return r, c.failure(err)
	}
	var got struct {
		Messages int
		Seconds  float64
		Latency  []time.Duration
	}
	if err := json.Unmarshal(line, &got); err != nil {
		return r, err
	}
	// Records are those that a batch of this size has.
	r.records, r.bytes, r.latency = got.Messages*c.perRequest(), got.Messages*c.messageSize(), got.Latency
	r.took = time.Duration(got.Seconds * float64(time.Second))
	return r, nil
}
