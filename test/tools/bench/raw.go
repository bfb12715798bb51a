package main

import (
	"errors"
	"net"
	"slices"
	"sync"
	"time"
)

// rawClient sends finished batches of record batch format 2, without a producer id, and reads the
// answers. It has a connection, or several, to each broker that leads a partition.
type rawClient struct {
	load
	leaders map[string][]int32 // partitions by address
}

func (c *rawClient) close() {}

// run connects anew, so that no run sees what another left behind.
func (c *rawClient) run(window time.Duration) (r result, err error) {
	type connection struct {
		net.Conn
		requests [][]byte
	}
	var all []connection
	each := max(1, c.conns/len(c.leaders))
	for addr, partitions := range c.leaders {
		for i := range each {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return r, err
			}
			defer conn.Close()
			one := connection{Conn: conn}
			for n := i; n < max(len(partitions), i+1); n += each {
				one.requests = append(one.requests, c.p.produceRequest(c.topic, partitions[n%len(partitions)]))
			}
			all = append(all, one)
		}
	}
	l := c.load
	l.conns = len(all)
	results, errs := make([]result, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	start := time.Now()
	for i, conn := range all {
		wg.Go(func() { results[i], errs[i] = l.exchange(conn, conn.requests, i, start, window) })
	}
	wg.Wait()
	r.took = time.Since(start)
	for _, one := range results {
		r.bytes, r.records, r.latency = r.bytes+one.bytes, r.records+one.records, slices.Concat(r.latency, one.latency)
	}
	return r, errors.Join(errs...)
}
