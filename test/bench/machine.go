package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
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

// printDisk writes and syncs as a log does: to a preallocated file, in order.
// Small machines often have a burst allowance; two seconds may be within it.
func printDisk(dir string) error {
	for _, run := range []struct {
		size, file int
		what       string
	}{{1 << 20, 1 << 30, "1 MiB write + fdatasync, preallocated file"}, {64 << 10, 256 << 20, "64 KiB write + fdatasync, preallocated file"}} {
		f, err := os.Create(filepath.Join(dir, "disk"))
		if err != nil {
			return err
		}
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(run.file)); err != nil {
			fmt.Printf("  (no fallocate here: %v)\n", err)
		}
		if err := f.Sync(); err != nil {
			return err
		}
		block := make([]byte, run.size)
		for i := range block {
			block[i] = byte(i * 7)
		}
		var each []time.Duration
		start := time.Now()
		bytes := 0
		for time.Since(start) < 2*time.Second && bytes+run.size <= run.file {
			t := time.Now()
			if _, err := f.Write(block); err != nil {
				return err
			}
			if err := syscall.Fdatasync(int(f.Fd())); err != nil {
				return err
			}
			each = append(each, time.Since(t))
			bytes += run.size
		}
		took := time.Since(start)
		f.Close()
		os.Remove(f.Name())
		fmt.Printf("  disk, %s: %.0f MB/s, p50 %s, p99 %s\n", run.what, float64(bytes)/1e6/took.Seconds(), ms(quantile(each, 0.5)), ms(quantile(each, 0.99)))
	}
	return nil
}

func printLoopback() error {
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
