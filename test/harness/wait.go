package harness

import (
	"fmt"
	"net"
	"time"
)

// Eventually asks for a condition until it holds or the time is over.
func Eventually(within time.Duration, holds func() bool) error {
	deadline := time.Now().Add(within)
	pause := 5 * time.Millisecond
	for {
		if holds() {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s", within)
		}
		<-time.After(pause)
		pause = min(pause*3/2, 100*time.Millisecond)
	}
}

// WaitTCP waits until a connection to addr is accepted.
func WaitTCP(addr string, within time.Duration) error {
	var last error
	err := Eventually(within, func() bool {
		var conn net.Conn
		conn, last = net.DialTimeout("tcp", addr, time.Second)
		if last != nil {
			return false
		}
		conn.Close()
		return true
	})
	if err != nil {
		return last
	}
	return nil
}
