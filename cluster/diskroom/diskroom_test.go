package diskroom

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/outcome"
)

// TestALeaderRefusesRecordsThatNobodyHasRoomFor: its own disk is full, or those of a majority of
// the voters.
func TestALeaderRefusesRecordsThatNobodyHasRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := false
		d := New(Config{Full: func() bool { return full }})
		servers := func() ([]raft.Server, error) {
			return []raft.Server{{ID: "n1"}, {ID: "n2"}, {ID: "n3"}, {ID: "n4", Suffrage: raft.Nonvoter}}, nil
		}
		refuses := func(what string, want bool) {
			t.Helper()
			if err := d.ForRecords(servers); (err != nil) != want || want && !errors.Is(err, outcome.ErrStorage) {
				t.Errorf("%s: %v", what, err)
			}
		}
		refuses("all have room", false)
		d.Heard(t.Context(), "n2", true)
		d.Heard(t.Context(), "n4", true)
		refuses("one of three is full", false)
		d.Heard(t.Context(), "n3", true)
		refuses("two of three are full", true)
		time.Sleep(fullFor - time.Millisecond)
		refuses("what they said holds", true)
		time.Sleep(time.Millisecond)
		refuses("they said nothing any more", false)
		d.Heard(t.Context(), "n2", true)
		d.Heard(t.Context(), "n3", true)
		d.Heard(t.Context(), "n3", false)
		refuses("one has room again", false)
		full = true
		refuses("the disk here is full", true)
	})
}

// TestAFullDiskIsTold every second while it is full, and once that it is not any more, whoever does
// not answer.
func TestAFullDiskIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		full := false
		told := map[string][]bool{}
		d := New(Config{Full: func() bool {
			mu.Lock()
			defer mu.Unlock()
			return full
		}, Others: func() []string { return []string{"n2", "hangs"} }, Tell: func(ctx context.Context, identity string, full bool) error {
			mu.Lock()
			told[identity] = append(told[identity], full)
			mu.Unlock()
			if identity == "hangs" {
				<-ctx.Done()
			}
			return ctx.Err()
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { d.Run(ctx); close(done) }()
		time.Sleep(tellFullEvery / 2)
		for _, state := range []bool{false, true, false} {
			mu.Lock()
			full = state
			mu.Unlock()
			time.Sleep(3 * tellFullEvery)
			synctest.Wait()
		}
		cancel()
		<-done
		for identity, got := range told {
			if want := []bool{true, true, true, false}; !slices.Equal(got, want) {
				t.Errorf("%s was told %v", identity, got)
			}
		}
		if len(told) != 2 {
			t.Errorf("told: %v", told)
		}
	})
}
