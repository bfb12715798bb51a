package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

const transactionsCommand = "org.apache.kafka.tools.TransactionsCommand"

// transactionsTool is kafka-transactions before, in and after a transaction that somebody has left
// open. In the pass with kills nodes die meanwhile.
func transactionsTool(ctx context.Context, a *attempt) (err error) {
	s, t := &script{ctx: ctx, attempt: a}, harness.Topic("tool-transactions")
	id := t + "-id"
	if err := a.makeTopic(ctx, t, partitions); err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(harness.Seeds(a.driverAddr), kgo.TransactionalID(id),
		kgo.TransactionTimeout(10*time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: t, Partition: 2, Value: []byte("open")}).FirstErr(); err != nil {
		return err
	}
	producer, _, err := cl.ProducerID(ctx)
	if err != nil {
		return err
	}
	stop := a.killInTurn(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	of := "--topic " + t + " --partition 2"
	s.run(transactionsCommand, "list", id, "Ongoing", fmt.Sprint(producer))
	if out := s.run(transactionsCommand, "list --duration-filter 86400000"); s.err == nil && strings.Contains(out, id) {
		s.err = fmt.Errorf("a transaction of this second is said to be a day old: %.300q", out)
	}
	s.run(transactionsCommand, "describe --transactional-id "+id, "Ongoing", t+"-2", fmt.Sprint(producer))
	s.refuse(transactionsCommand, "describe --transactional-id "+id+"-unknown", "could not be found")
	s.run(transactionsCommand, "describe-producers "+of, fmt.Sprint(producer))
	s.run(transactionsCommand, "find-hanging --topic "+t+" --max-transaction-timeout 15")
	s.run(transactionsCommand, "abort "+of+" --start-offset 0")
	if out := s.run(transactionsCommand, "describe-producers "+of, "None"); s.err == nil && !strings.Contains(out, fmt.Sprint(producer)) {
		s.err = fmt.Errorf("the producer is forgotten: %.300q", out)
	}
	if s.err != nil {
		return s.err
	}
	// What was aborted by hand is out of the way of readers, and the producer can end the rest.
	if err := cl.EndTransaction(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("ending the transaction: %w", err)
	}
	s.run(transactionsCommand, "describe --transactional-id "+id, "CompleteAbort")
	return s.err
}

// hangingTool is kafka-transactions before what it was made for: a transaction that hangs, in a
// cluster of its own that lets that happen.
func hangingTool(ctx context.Context, a *attempt) (err error) {
	if a.against != "" {
		a.note("left out: another cluster cannot be told to let a transaction hang")
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o777); err != nil {
		return err
	}
	program, err := harness.HangingProgram(a.dir)
	if err != nil {
		return err
	}
	end, err := a.ownCluster(harness.Options{Program: program})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	t := harness.Topic("tool-hanging")
	if err := a.makeTopic(ctx, t, partitions); err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(harness.Seeds(a.driverAddr), kgo.TransactionalID(t+"-id"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: t, Partition: 2, Value: []byte("hangs")}).FirstErr(); err != nil {
		return err
	}
	producer, _, err := cl.ProducerID(ctx)
	if err != nil {
		return err
	}
	s := &script{ctx: ctx, attempt: a}
	find := "find-hanging --topic " + t + " --max-transaction-timeout "
	line := regexp.MustCompile(fmt.Sprintf(`(?m)^%s\s+2\s+%d\s`, regexp.QuoteMeta(t), producer))
	if out := s.run(transactionsCommand, find+"15"); s.err == nil && line.MatchString(out) {
		s.err = fmt.Errorf("what is younger than 15 minutes is said to hang: %.300q", out)
	}
	if out := s.run(transactionsCommand, find+"0"); s.err == nil && !line.MatchString(out) {
		s.err = fmt.Errorf("find-hanging does not find it: %.300q", out)
	}
	s.run(transactionsCommand, "abort --topic "+t+" --partition 2 --start-offset 0")
	if out := s.run(transactionsCommand, find+"0"); s.err == nil && line.MatchString(out) {
		s.err = fmt.Errorf("it hangs still: %.300q", out)
	}
	s.run(transactionsCommand, "describe-producers --topic "+t+" --partition 2", fmt.Sprint(producer), "None")
	return s.err
}
