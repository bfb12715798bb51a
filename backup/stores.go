package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"
)

// Store keeps objects by key. Keys are slash-separated names of letters, digits, '-', '_' and '.'.
// An object is written once and never changed. Methods may be called concurrently.
type Store interface {
	// Put stores an object as a whole or not at all. The error is ErrExists if there is one with
	// that key and the store can tell; one that cannot tell stores it again. It is ErrFull where
	// there is no room, and the store says so.
	Put(ctx context.Context, key string, data []byte) error
	// Get gives an object. The error is ErrNotFound where there is none; one of more than limit
	// bytes is an error, too.
	Get(ctx context.Context, key string, limit int64) ([]byte, error)
	// Size gives how many bytes an object has, without reading it. The error is ErrNotFound where
	// there is none.
	Size(ctx context.Context, key string) (int64, error)
	// Same reads an object and reports whether it is data, with little memory. Errors are those of
	// Get.
	Same(ctx context.Context, key string, data []byte) (bool, error)
	// List calls each for the objects whose keys begin with prefix, in any order.
	List(ctx context.Context, prefix string, each func(Stored) error) error
	// Delete deletes an object. To delete what is not there is no error.
	Delete(ctx context.Context, key string) error
	// String names the store, without what is secret.
	String() string
}

// Stored is an object as a list has it.
type Stored struct {
	Key      string
	Bytes    int64
	Modified time.Time // by the store's clock
}

var (
	// ErrExists says that there is an object with that key.
	ErrExists = errors.New("is there already")
	// ErrNotFound says that there is none.
	ErrNotFound = errors.New("is not there")
	// ErrFull says that the store has no room.
	ErrFull = errors.New("the store is full")
	// errTooLarge says that an object has more bytes than what it is can have.
	errTooLarge = errors.New("is larger than it can be")
)

// Open opens the store that a URL names:
//
//	file:///path/of/a/folder
//	s3://bucket/prefix?endpoint=https://host:port&region=name
//
// Credentials of S3 are not in the URL but in the environment (AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY), in the file that AWS's tools read, or the machine's role. Nothing is
// asked of the store yet.
func Open(address string) (Store, error) { return open(address, false) }

// OpenReadBack is Open for who reads all that it puts, and compares: no sum of it goes along, which
// would cost the processor more than all else. A list may name an object several times, and none of
// it is kept in memory.
func OpenReadBack(address string) (Store, error) { return open(address, true) }

func open(address string, readBack bool) (Store, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("%q is no URL", address)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("%q: want file:///path/of/a/folder", address)
		}
		return patient{store: newFileStore(u.Path), backoff: wait, repeats: readBack}, nil
	case "s3":
		store, err := newS3(u, readBack)
		if err != nil {
			return nil, err
		}
		return patient{store: store, backoff: wait, repeats: readBack}, nil
	}
	return nil, fmt.Errorf("%q: want file:///path or s3://bucket/prefix?endpoint=…", address)
}

// checkKey says whether a key is one: what a manifest names must not lead out of its store.
func checkKey(key string) error {
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' {
			return fmt.Errorf("key %q: %w", key, fs.ErrInvalid)
		}
		for i := range len(part) {
			if c := part[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
				return fmt.Errorf("key %q: %w", key, fs.ErrInvalid)
			}
		}
	}
	return nil
}
