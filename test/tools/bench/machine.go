package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func printConditions(dir string) error {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	kind := map[int64]string{0x01021994: "tmpfs", 0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x794c7630: "overlayfs"}[int64(fs.Type)]
	if kind == "" {
		kind = fmt.Sprintf("file system type %#x", fs.Type)
	}
	fmt.Printf("  %s, %d cores, Linux %s, %s, data on %s\n", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), kind)
	return nil
}

// quantile gives the q-th part of durations, 0 for none.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

// ceiling is what the disk gives three processes that write as logs do.
type ceiling struct {
	mbs   float64       // 1 MiB write and fdatasync, three at once, together
	small time.Duration // one 4 KiB write and fdatasync, alone
}

// ceilings writes and syncs as logs do: to preallocated files, in order. Small machines
// often have a burst allowance and give less once it is used up, so it is asked before and after.
func (b *bench) ceilings(when string) error {
	three, _, err := writers(b.diskDir, 3, 1<<20, 2*time.Second)
	if err != nil {
		return err
	}
	_, small, err := writers(b.diskDir, 1, 4<<10, time.Second)
	if err != nil {
		return err
	}
	if b.disk.mbs == 0 {
		b.disk = ceiling{three, small}
	}
	fmt.Printf("  disk %s: three writers of 1 MiB + fdatasync, preallocated files: %.0f MB/s together; one 4 KiB write + fdatasync: %s\n", when, three, ms(small))
	return nil
}

// memoryCost is what writing to fresh memory takes by itself, which is part of every figure in
// memory, three times.
func (b *bench) memoryCost() error {
	if b.memoryDir == "" {
		return nil
	}
	before := selfCPU()
	mbs, _, err := writers(b.memoryDir, 1, 1<<20, time.Second)
	if err != nil {
		return err
	}
	fmt.Printf("  tmpfs: one writer of 1 MiB: %.0f MB/s, CPU %.2f ms/MB\n", mbs, float64((selfCPU()-before).Microseconds())/1000/mbs)
	return nil
}

// pingPong is what it takes one thread to wake another and wait for it, through two pipes: half of
// a round trip, which has two context switches. Both threads on one core, if core is not negative.
func pingPong(core int) (time.Duration, error) {
	const rounds = 20_000
	// Each thread keeps its P while it waits, which is no work of the kernel's that is measured.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(4, runtime.GOMAXPROCS(0))))
	var there, back [2]int
	if err := errors.Join(syscall.Pipe(there[:]), syscall.Pipe(back[:])); err != nil {
		return 0, err
	}
	defer func() {
		for _, fd := range []int{there[0], there[1], back[0], back[1]} {
			syscall.Close(fd)
		}
	}()
	move := func(trap uintptr, fd int) error {
		var b [1]byte
		for {
			_, _, errno := syscall.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1)
			switch errno {
			case 0:
				return nil
			case syscall.EINTR:
			default:
				return errno
			}
		}
	}
	thread := func(first, second uintptr, firstFD, secondFD int) error {
		runtime.LockOSThread() // and never unlocked: the thread ends with its affinity
		if core >= 0 {
			var set unix.CPUSet
			set.Set(core)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				return err
			}
		}
		for range rounds {
			if err := errors.Join(move(first, firstFD), move(second, secondFD)); err != nil {
				return err
			}
		}
		return nil
	}
	var errs [2]error
	var wg sync.WaitGroup
	start := time.Now()
	wg.Go(func() { errs[0] = thread(syscall.SYS_WRITE, syscall.SYS_READ, there[1], back[0]) })
	wg.Go(func() { errs[1] = thread(syscall.SYS_READ, syscall.SYS_WRITE, there[0], back[1]) })
	wg.Wait()
	return time.Since(start) / (2 * rounds), errors.Join(errs[:]...)
}

// printPaced says what a sync and a round trip take when the machine has nothing to do in between,
// as with one record at a time: cores and disks that have gone to sleep take longer.
func (b *bench) printPaced() error {
	f, err := os.CreateTemp(b.diskDir, "paced")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4<<10)
	var each []time.Duration
	for range 250 {
		time.Sleep(2 * time.Millisecond)
		at := time.Now()
		if _, err := f.Write(block); err != nil {
			return err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		each = append(each, time.Since(at))
	}
	fmt.Printf("  disk, one 4 KiB write + fdatasync every 2 ms, to a growing file: %s\n", ms(quantile(each, 0.5)))
	return nil
}

func printPingPong() error {
	one, err := pingPong(0)
	if err != nil {
		fmt.Printf("  context switch: not measured: %v\n", err)
		return nil
	}
	free, err := pingPong(-1)
	if err != nil {
		return err
	}
	fmt.Printf("  context switch, by a ping-pong through two pipes: %.1f µs on one core, %.1f µs where the kernel likes\n", float64(one.Nanoseconds())/1000, float64(free.Nanoseconds())/1000)
	return nil
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// writers lets n files be written at once and gives their MB/s together and the median of one write
// and sync.
func writers(dir string, n, size int, window time.Duration) (mbs float64, p50 time.Duration, err error) {
	const file = 2 << 30
	bytes, each, errs := make([]int, n), make([][]time.Duration, n), make([]error, n)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range n {
		wg.Go(func() {
			errs[i] = func() error {
				f, err := os.CreateTemp(dir, "ceiling")
				if err != nil {
					return err
				}
				defer os.Remove(f.Name())
				defer f.Close()
				if err := syscall.Fallocate(int(f.Fd()), 0, 0, file); err != nil {
					fmt.Printf("  (no fallocate here: %v)\n", err)
				}
				block := make([]byte, size)
				for j := range block {
					block[j] = byte(j * 7)
				}
				for time.Since(start) < window && bytes[i]+size <= file {
					at := time.Now()
					if _, err := f.Write(block); err != nil {
						return err
					}
					if err := syscall.Fdatasync(int(f.Fd())); err != nil {
						return err
					}
					each[i] = append(each[i], time.Since(at))
					bytes[i] += size
				}
				return nil
			}()
		})
	}
	wg.Wait()
	took := time.Since(start)
	total := 0
	for _, n := range bytes {
		total += n
	}
	return float64(total) / 1e6 / took.Seconds(), quantile(slices.Concat(each...), 0.5), errors.Join(errs...)
}

// printLoopback also sets roundTrip to the median of a small message there and back.
func printLoopback(roundTrip *time.Duration) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var first [1]byte
				if _, err := io.ReadFull(conn, first[:]); err != nil {
					return
				}
				if first[0] == 'e' {
					io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}, make([]byte, 1<<16))
				} else {
					io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 1<<20))
				}
			}()
		}
	}()
	echo, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer echo.Close()
	echo.Write([]byte{'e'})
	var each []time.Duration
	b := make([]byte, 64)
	for start := time.Now(); time.Since(start) < time.Second; {
		t := time.Now()
		if _, err := echo.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(echo, b); err != nil {
			return err
		}
		each = append(each, time.Since(t))
	}
	*roundTrip = quantile(each, 0.5)
	sink, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer sink.Close()
	sink.Write([]byte{'s'})
	block := make([]byte, 1<<20)
	bytes, start := 0, time.Now()
	for time.Since(start) < time.Second {
		n, err := sink.Write(block)
		if err != nil {
			return err
		}
		bytes += n
	}
	fmt.Printf("  loopback: %.0f MB/s one way, round trip of 64 bytes p50 %s, p99 %s\n", float64(bytes)/1e6/time.Since(start).Seconds(), ms(quantile(each, 0.5)), ms(quantile(each, 0.99)))
	return nil
}
