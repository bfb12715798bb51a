package harness

import (
	"fmt"
	"sync/atomic"
	"time"
)

var names atomic.Int64

// Topic gives a topic name that no other test uses.
func Topic(prefix string) string {
	return fmt.Sprintf("%s-%d-%d", prefix, time.Now().UnixMilli()%1_000_000, names.Add(1))
}
