package backup

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/minio/minio-go/v7"
)

// fullStore says that it has no room, as stores do.
type fullStore struct {
	*memStore
	err  error
	puts int
}

func (s *fullStore) Put(_ context.Context, key string, _ []byte) error {
	s.puts++
	return said(key, s.err)
}

// TestAFullStoreIsSentAnObjectOnce: another attempt would be in vain, and all of it be sent again.
func TestAFullStoreIsSentAnObjectOnce(t *testing.T) {
	for _, err := range []error{
		minio.ErrorResponse{StatusCode: http.StatusInsufficientStorage},
		minio.ErrorResponse{StatusCode: http.StatusServiceUnavailable, Code: "XMinioStorageFull"},
	} {
		s := &fullStore{memStore: newMemStore(), err: err}
		p := patient{store: s, backoff: func(context.Context, int) error { return nil }}
		if err := p.Put(t.Context(), "key", []byte("x")); !errors.Is(err, ErrFull) || s.puts != 1 {
			t.Errorf("%v after %d attempts", err, s.puts)
		}
	}
}
