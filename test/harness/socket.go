package harness

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// unixScheme begins the address of a node's Unix socket. Several, with commas between them, are one
// address: the first that answers is taken.
const unixScheme = "unix:"

// Seeds are the options by which franz-go reaches these brokers: TCP addresses, or those of Unix
// sockets. Through sockets whatever broker is named is reached by the first socket that answers.
func Seeds(addrs ...string) []kgo.Opt {
	if !strings.HasPrefix(addrs[0], unixScheme) {
		return []kgo.Opt{kgo.SeedBrokers(addrs...)}
	}
	all := strings.Join(addrs, ",")
	return []kgo.Opt{kgo.SeedBrokers("127.0.0.1"), kgo.Dialer(func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, all)
	})}
}

func dial(ctx context.Context, addr string) (conn net.Conn, err error) {
	var d net.Dialer
	if !strings.HasPrefix(addr, unixScheme) {
		return d.DialContext(ctx, "tcp", addr)
	}
	var failed []error
	for _, a := range strings.Split(addr, ",") {
		if conn, err = d.DialContext(ctx, "unix", strings.TrimPrefix(a, unixScheme)); err == nil {
			return conn, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}
