//go:build !unix

package shim

import "net"

func writeNow(net.Conn, []byte) int { return 0 }
