package main

import (
	"maps"
	"testing"
	"time"
)

func TestByteSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "50MB": 50e6, "4MiB": 4 << 20, "4 mib": 4 << 20, "1.5kB": 1500, "2K": 2048, "7B": 7, "1GB": 1e9, "1TiB": 1 << 40,
	} {
		b := newByteSize(-1)
		if err := b.Set(in); err != nil || int64(*b) != want {
			t.Errorf("%q gives %d, %v, want %d", in, int64(*b), err, want)
		}
		again := newByteSize(-1)
		if err := again.Set(b.String()); err != nil || *again != *b {
			t.Errorf("%q is shown as %s, which is read as %d, %v", in, b, int64(*again), err)
		}
	}
	for _, bad := range []string{"", "MB", "-1", "x", "1XB", "NaN", "1e30", "9223372036854775808"} {
		if b := newByteSize(0); b.Set(bad) == nil {
			t.Errorf("%q is taken as %d", bad, int64(*b))
		}
	}
}

func TestShowBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 100 << 20: "100 MiB", 1 << 40: "1 TiB"} {
		if got := showBytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// The defaults for topics go by Kafka's names, and only those that were given.
func TestStorageOptions(t *testing.T) {
	parse := func(env map[string]string, args ...string) (storageOptions, error) {
		cmd, err := loaded(t, env, append([]string{"serve"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		o, err := serveOptions(cmd)
		return o.storage, err
	}
	o, err := parse(nil)
	if err != nil || len(o.topicDefaults) > 0 || o.retentionInterval != 30*time.Second || o.maxDiskShare != 0 || o.catchUpRate != 100<<20 || o.scrubRate != 4<<20 {
		t.Errorf("nothing given: %+v, %v", o, err)
	}
	o, err = parse(map[string]string{"TRIMARAN_MESSAGE_MAX_BYTES": "2000", "TRIMARAN_CATCH_UP_RATE": "50MB"},
		"--log-retention-ms", "-1", "--log-retention-bytes", "5000", "--log-segment-bytes=100", "--log-roll-ms=7",
		"--log-retention-check-interval", "1s", "--max-disk-share", "0.8", "--scrub-rate", "0")
	want := map[string]string{"retention.ms": "-1", "retention.bytes": "5000", "segment.bytes": "100", "segment.ms": "7", "max.message.bytes": "2000"}
	if err != nil || !maps.Equal(o.topicDefaults, want) || o.retentionInterval != time.Second || o.maxDiskShare != 0.8 || o.catchUpRate != 50e6 || o.scrubRate >= 0 {
		t.Errorf("all given: %+v, %v", o, err)
	}
	for _, bad := range [][]string{
		{"--log-retention-ms", "-2"}, {"--log-segment-bytes", "13"}, {"--log-segment-bytes", "2147483648"}, {"--log-roll-ms", "0"},
		{"--message-max-bytes", "-1"}, {"--log-retention-check-interval", "0s"}, {"--max-disk-share", "1.1"}, {"--max-disk-share", "NaN"}, {"--catch-up-rate", "0"},
	} {
		if o, err := parse(nil, bad...); err == nil {
			t.Errorf("%v is taken as %+v", bad, o)
		}
	}
}
