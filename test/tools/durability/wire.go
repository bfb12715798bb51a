package main

import (
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// maxAnswer bounds what is asked for at a time, in bytes.
const maxAnswer = 128 << 20

// login is how connections log in; nil: they do not. It is set before there are any.
var login *harness.Login

// asUser adds to arguments of the command line who calls.
func asUser(args ...string) []string {
	if login != nil {
		args = append(args, "--user", login.User)
	}
	return args
}

// connect gives a connection with at most one request outstanding, so that the fate
// of every request is exact: an answer, or unknown because the connection broke.
func connect(addr string, within time.Duration) (*harness.Wire, error) {
	w, err := login.Dial(addr, within)
	if err == nil {
		w.Client = "durability"
	}
	return w, err
}

// parseMessages reads an uncompressed message set of magic 0. The last message
// may be cut off, as brokers do at max_bytes, and is then left out.
func parseMessages(set []byte) ([]harness.Entry, error) {
	all, _, err := harness.Messages(set)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.Magic != 0 || m.Attributes != 0 {
			return nil, fmt.Errorf("message at offset %d has magic %d and attributes %d, want 0 and 0", m.Offset, m.Magic, m.Attributes)
		}
	}
	return all, nil
}
