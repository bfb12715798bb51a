package tier

import (
	"bytes"
	"context"
	"errors"
)

// Store keeps objects by key. Keys are slash-separated names of letters, digits, '-', '_' and '.'.
// Methods may be called concurrently, and may take as long as their context allows.
type Store interface {
	// Put stores an object as a whole or not at all. The error wraps ErrExists if there is one with
	// that key and the store can tell; one that cannot tell stores it again. It wraps ErrFull
	// where the store has no room, and says so.
	Put(ctx context.Context, key string, data []byte) error
	// Get gives an object. The error wraps ErrNotFound where there is none; one of more than limit
	// bytes is an error, too.
	Get(ctx context.Context, key string, limit int64) ([]byte, error)
	// Size gives how many bytes an object has, without reading it. The error wraps ErrNotFound
	// where there is none.
	Size(ctx context.Context, key string) (int64, error)
	// List calls each for the keys that begin with prefix, in any order, for some perhaps more than
	// once. It may lack what was put a moment ago, and still have what was deleted.
	List(ctx context.Context, prefix string, each func(key string) error) error
	// Delete deletes an object. To delete what is not there is no error.
	Delete(ctx context.Context, key string) error
	// String names the store, without what is secret.
	String() string
}

// Comparer is a Store that compares what it has with what was put there by itself, with little
// memory. The error wraps ErrNotFound where there is nothing.
type Comparer interface {
	Same(ctx context.Context, key string, data []byte) (bool, error)
}

// compare reads an object back and reports whether it is data.
func compare(ctx context.Context, store Store, key string, data []byte) (bool, error) {
	if c, ok := store.(Comparer); ok {
		return c.Same(ctx, key, data)
	}
	there, err := store.Get(ctx, key, int64(len(data)))
	return err == nil && bytes.Equal(there, data), err
}

var (
	// ErrExists says that there is an object with that key.
	ErrExists = errors.New("is there already")
	// ErrFull says that the store has no room.
	ErrFull = errors.New("there is no room in the store")
	// ErrNotFound says that there is none.
	ErrNotFound = errors.New("is not there")
	// ErrDamaged says that an object is not what was put there.
	ErrDamaged = errors.New("is damaged in the store")
	// ErrLater says that what is asked for is not here yet: it is being fetched, or the store does
	// not give it at the moment. It may be asked for again.
	ErrLater = errors.New("the records are in the tier and not here yet: ask again")
	// ErrFails says, beside ErrLater, that this node's last attempt to get what is asked for has
	// failed. Another node may have the way to the store that this one has not.
	ErrFails = errors.New("the store does not give it")
	// ErrEmpty says that the store is nobody's, though records of the cluster are in one.
	ErrEmpty = errors.New("the store has nothing, and records of this cluster are in one: it is not the one that all nodes were told of before")
	// ErrForeign says that the store is another cluster's.
	ErrForeign = errors.New("the store is another cluster's")
)
