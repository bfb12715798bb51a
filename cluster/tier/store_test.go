package tier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// memStore keeps objects in memory and fails as it is told to.
type memStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	hidden  map[string]bool // not listed yet
	// fail is asked before each call; its error is that of the call.
	fail func(op, key string) error
	// lost, if not nil, is asked when an object was stored; its error is that of the call.
	lost func(key string) error
	// change changes what is given.
	change func(key string, data []byte) []byte
	// gate, if not nil, is waited for by Get.
	gate chan struct{}
	gets int
	// sizes counts who asked for one.
	sizes int
}

func newMemStore() *memStore {
	return &memStore{objects: map[string][]byte{}, hidden: map[string]bool{}}
}

func (s *memStore) String() string { return "memory" }

func (s *memStore) failing(op, key string) error {
	if s.fail != nil {
		return s.fail(op, key)
	}
	return nil
}

func (s *memStore) Put(_ context.Context, key string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failing("put", key); err != nil {
		return err
	}
	if _, ok := s.objects[key]; ok {
		return fmt.Errorf("%s %w", key, ErrExists)
	}
	s.objects[key] = bytes.Clone(data)
	if s.lost != nil {
		return s.lost(key)
	}
	return nil
}

func (s *memStore) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	if err := s.failing("get", key); err != nil {
		return nil, err
	}
	data, ok := s.objects[key]
	if !ok {
		return nil, fmt.Errorf("%s %w", key, ErrNotFound)
	}
	if s.change != nil {
		data = s.change(key, bytes.Clone(data))
	}
	if int64(len(data)) > limit {
		return nil, errors.New("too large")
	}
	return bytes.Clone(data), nil
}

func (s *memStore) Size(_ context.Context, key string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes++
	if err := s.failing("size", key); err != nil {
		return 0, err
	}
	data, ok := s.objects[key]
	if !ok {
		return 0, fmt.Errorf("%s %w", key, ErrNotFound)
	}
	return int64(len(data)), nil
}

func (s *memStore) List(_ context.Context, prefix string, each func(string) error) error {
	s.mu.Lock()
	if err := s.failing("list", prefix); err != nil {
		s.mu.Unlock()
		return err
	}
	var keys []string
	for key := range s.objects {
		if strings.HasPrefix(key, prefix) && !s.hidden[key] {
			keys = append(keys, key)
		}
	}
	s.mu.Unlock()
	for _, key := range keys {
		if err := each(key); err != nil {
			return err
		}
	}
	return nil
}

func (s *memStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failing("delete", key); err != nil {
		return err
	}
	delete(s.objects, key)
	return nil
}

func (s *memStore) count(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.objects {
		if strings.HasPrefix(key, prefix) {
			n++
		}
	}
	return n
}

const moment = 100 * time.Millisecond
