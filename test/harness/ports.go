package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Ports come from below the kernel's ephemeral range (32768 by default), so that
// no outgoing connection can take one between its choice and its use. Test
// processes that run side by side keep apart by locking a file per port until
// they end.
const (
	firstPort = 14000
	lastPort  = 31999
)

var portLocks struct {
	sync.Mutex
	files []*os.File
}

// FreePort gives a loopback port that is free for TCP and UDP and that no other
// test process on this machine is going to use.
func FreePort() (int, error) { return freeRun(func(int) []int { return []int{0} }) }

// FreePortBase gives a port so that the port plus each of the offsets is free.
func FreePortBase(offsets ...int) (int, error) {
	return freeRun(func(int) []int { return offsets })
}

func freeRun(offsets func(int) []int) (int, error) {
	dir := filepath.Join(os.TempDir(), "trimaran-test-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return 0, err
	}
	for range 2000 {
		base := firstPort + rand.IntN(lastPort-firstPort)
		var locks []*os.File
		ok := true
		for _, off := range offsets(base) {
			f, err := lockPort(dir, base+off)
			if err != nil {
				ok = false
				break
			}
			locks = append(locks, f)
		}
		if ok {
			portLocks.Lock()
			portLocks.files = append(portLocks.files, locks...)
			portLocks.Unlock()
			return base, nil
		}
		for _, f := range locks {
			f.Close()
		}
	}
	return 0, errors.New("no free loopback port found")
}

func lockPort(dir string, port int) (*os.File, error) {
	if port > 65535 {
		return nil, fmt.Errorf("port %d", port)
	}
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	addr := Loopback(port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		f.Close()
		return nil, err
	}
	l.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		f.Close()
		return nil, err
	}
	u.Close()
	return f, nil
}

// Loopback gives 127.0.0.1 with a port.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
