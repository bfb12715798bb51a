package collector

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memory gives the bytes that this process may have: the machine's, or fewer in a control group.
func memory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	bytes := int64(info.Totalram) * int64(info.Unit)
	limit, _ := os.ReadFile("/sys/fs/cgroup/memory.max") // "max" where there is no limit
	if n, err := strconv.ParseInt(strings.TrimSpace(string(limit)), 10, 64); err == nil {
		bytes = min(bytes, n)
	}
	return bytes
}
