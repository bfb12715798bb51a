package tier

import (
	"bytes"
	"os"
	"strconv"
)

// machineLoad gives the time that the processors were busy since the machine was started, and all
// of it, as the first line of /proc/stat has them (proc_stat(5)).
func machineLoad() (busy, all int64, ok bool) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0, 0, false
	}
	defer f.Close()
	var b [256]byte
	n, _ := f.Read(b[:])
	line, _, _ := bytes.Cut(b[:n], []byte("\n"))
	for i, field := range bytes.Fields(line) {
		if i == 0 || i > 8 { // "cpu"; what guests had is in what users had
			continue
		}
		ticks, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, 0, false
		}
		all += ticks
		if i != 4 && i != 5 { // idle, or idle while something was read
			busy += ticks
		}
	}
	return busy, all, all > 0
}
