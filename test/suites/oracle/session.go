package oracle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/test/harness"
)

// Suite is a table of cases, answered by one version of Kafka.
type Suite struct {
	Name  string
	Kafka string // version
	Cases []Case

	// Secured: clients have to log in, and are judged by ACLs.
	Secured bool
}

// Case is some requests, whose answers are written down.
type Case struct {
	Name string
	Run  func(*T)
}

// atOnce is how many cases run beside each other: most of their time they wait for a topic.
// More would keep the one thread of Kafka's controller waiting.
const atOnce = 4

// Broker is where one is reached.
type Broker struct {
	Addr string // whoever comes there may do everything
	SASL string // who comes there has to log in; only where that is secured
}

// Answers runs the suite against a broker: the lines of each case, in order.
func (s Suite) Answers(b Broker) ([][]string, error) {
	all, errs := make([][]string, len(s.Cases)), make([]error, len(s.Cases))
	var wg sync.WaitGroup
	next := make(chan int)
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				t := &T{broker: b, suite: s.Name, number: i + 1, Now: time.Now().UnixMilli(), aliases: map[string]string{}}
				if err := t.run(s.Cases[i].Run); err != nil {
					errs[i] = fmt.Errorf("%s: %s: %w", s.Name, s.Cases[i].Name, err)
				}
				all[i] = t.lines
			}
		})
	}
	for i := range s.Cases {
		next <- i
	}
	close(next)
	wg.Wait()
	return all, errors.Join(errs...)
}

// T is what a case has.
type T struct {
	// Now is the time at which the case began, in ms since epoch. Times in answers are
	// written down as their distance to it.
	Now int64

	broker  Broker
	user    string // who it is logged in as; "" for nobody, who may do everything
	byName  bool   // what an answer lists is written down by its names: brokers have other orders
	guest   bool   // at the broker's SASL address, and not logged in
	suite   string
	number  int
	topics  int
	wire    *harness.Wire
	lines   []string
	aliases map[string]string // what differs from run to run, and its name

	patience time.Duration // in place of the constant, if not 0
}

// failure is what ends a case that cannot go on: the broker is not as it should be.
type failure struct{ error }

func (t *T) fail(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

func (t *T) run(f func(*T)) (err error) {
	defer func() {
		t.hangUp()
		switch v := recover().(type) {
		case nil:
		case failure:
			err = v.error
		default:
			panic(v)
		}
	}()
	f(t)
	return nil
}

// Say writes a line down.
func (t *T) Say(format string, args ...any) {
	t.lines = append(t.lines, strings.Split(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n")...)
}

// Alias has a text that differs from run to run written down as name.
func (t *T) Alias(text, name string) { t.aliases[text] = name }

// Name gives a name that only this case has, the same in every run.
func (t *T) Name() string {
	t.topics++
	return fmt.Sprintf("%s-%d-%d", t.suite, t.number, t.topics)
}

// Topic creates a topic of one partition and waits until it can be used. Configs are
// "name=value".
func (t *T) Topic(configs ...string) string {
	name := t.Name()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 5, 90_000
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
	for _, c := range configs {
		key, value, _ := strings.Cut(c, "=")
		topic.Configs = append(topic.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: key, Value: &value})
	}
	req.Topics = append(req.Topics, topic)
	resp := t.ask(req).(*kmsg.CreateTopicsResponse)
	if code := resp.Topics[0].ErrorCode; code != 0 {
		t.fail("creating %s: %s", name, errorName(code))
	}
	t.Alias(name, fmt.Sprintf("topic-%d", t.topics))
	t.usable(name)
	return name
}

// usable waits until a topic can be read: a broker that lists it may not lead it yet.
func (t *T) usable(name string) {
	t.until("a leader of "+name, func() bool { return t.read(name).ErrorCode == 0 })
}

// until waits for what a case needs.
func (t *T) until(what string, holds func() bool) {
	for end := time.Now().Add(setupPatience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.fail("not to be had: %s", what)
		}
	}
}

// TopicID gives the id of a topic.
func (t *T) TopicID(name string) [16]byte {
	m := kmsg.NewPtrMetadataRequest()
	m.Version = 10
	m.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
	return t.ask(m).(*kmsg.MetadataResponse).Topics[0].TopicID
}

// Do sends a request and writes its answer down, without the volatile fields and those
// named. nil: there was none, which is written down, too.
func (t *T) Do(req kmsg.Request, without ...string) kmsg.Response {
	resp, err := t.send(req)
	title := fmt.Sprintf("%s v%d: ", kmsg.NameForKey(req.Key()), req.GetVersion())
	if err != nil {
		t.Say("%s%v", title, err)
		return nil
	}
	t.Say("%s%s", title, t.render(resp, without))
	return resp
}

// ask is Do for what is not the question: nothing is written down, and there must be an answer.
func (t *T) ask(req kmsg.Request) kmsg.Response {
	t.patience = setupPatience
	defer func() { t.patience = 0 }()
	resp, err := t.send(req)
	if err != nil {
		t.fail("%s: %v", kmsg.NameForKey(req.Key()), err)
	}
	return resp
}

// errClosed is that the broker closed the connection without an answer, errSilent that it
// does nothing for patience.
var (
	errClosed = errors.New("the connection is closed")
	errSilent = errors.New("no answer")
)

// patience is how long an answer to what a case asks is waited for, and setupPatience one to
// what it needs to be able to ask, on a machine that has other things to do.
const (
	patience      = 15 * time.Second
	setupPatience = 2 * time.Minute
)

func (t *T) send(req kmsg.Request) (kmsg.Response, error) {
	return exchange(t, func(w *harness.Wire) (kmsg.Response, error) { return w.Ask(req) })
}

// exchange asks something over the case's connection. What the broker does in place of an answer is
// an error; anything else that is wrong ends the case.
func exchange[A any](t *T, ask func(*harness.Wire) (A, error)) (none A, err error) {
	if t.wire == nil {
		t.wire = t.dial()
	}
	limit := t.patience
	if limit == 0 {
		limit = patience
	}
	_ = t.wire.Conn.SetDeadline(time.Now().Add(limit))
	answer, err := ask(t.wire)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		t.hangUp()
		return none, errClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.hangUp()
		return none, errSilent
	case err != nil:
		t.fail("%v", err)
	}
	return answer, nil
}

func (t *T) dial() *harness.Wire {
	addr := t.broker.Addr
	if t.user != "" || t.guest {
		addr = t.broker.SASL
	}
	wire, err := harness.DialWire(addr)
	if err != nil {
		t.fail("%v", err)
	}
	wire.Client = "oracle"
	if t.user != "" {
		if err := logIn(wire, t.user, password); err != nil {
			t.fail("%s logs in: %v", t.user, err)
		}
	}
	return wire
}

func (t *T) hangUp() {
	if t.wire != nil {
		t.wire.Close()
		t.wire = nil
	}
}

// Raw sends a request of these bytes behind an ordinary header (of version 1, without tags) and
// writes down the bytes of the answer, or that there is none.
func (t *T) Raw(key, version int16, body []byte) {
	title := fmt.Sprintf("%s v%d: ", kmsg.NameForKey(key), version)
	answer, err := exchange(t, func(w *harness.Wire) ([]byte, error) { return w.Do(key, version, body) })
	if err != nil {
		t.Say("%s%v", title, err)
	} else {
		t.Say("%s%x", title, answer)
	}
}

// Hello gives the range of versions that the broker has of an API.
func (t *T) Hello(key int16) {
	req := kmsg.NewPtrApiVersionsRequest()
	for _, k := range t.ask(req).(*kmsg.ApiVersionsResponse).ApiKeys {
		if k.ApiKey == key {
			t.Say("%s: versions %d to %d", kmsg.NameForKey(key), k.MinVersion, k.MaxVersion)
			return
		}
	}
	t.Say("%s: not served", kmsg.NameForKey(key))
}

// Produce sends records to partition 0 of a topic, and writes down the error, the
// records that are blamed (from version 8), or the offset.
func (t *T) Produce(version int16, topic string, records []byte) {
	t.ProduceAcks(version, -1, topic, 0, records)
}

// ProduceAcks is Produce to any partition.
func (t *T) ProduceAcks(version, acks int16, topic string, partition int32, records []byte) {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, acks, 20_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	if version >= 13 {
		rt.TopicID = t.TopicID(topic)
	}
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, records
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := t.send(req)
	if err != nil {
		t.Say("Produce v%d: %v", version, err)
		return
	}
	p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	text := fmt.Sprintf("Produce v%d: %s", version, errorName(p.ErrorCode))
	if p.ErrorCode == 0 {
		text += fmt.Sprintf(" at %d", p.BaseOffset)
	}
	if len(p.ErrorRecords) > 0 {
		text += " records"
		for _, r := range p.ErrorRecords {
			text += " " + strconv.Itoa(int(r.RelativeOffset))
		}
	}
	t.Say("%s", text)
}

func errorName(code int16) string {
	if code == 0 {
		return "NONE"
	}
	if e := kerr.TypedErrorForCode(code); e != nil {
		return e.Message
	}
	return strconv.Itoa(int(code))
}
