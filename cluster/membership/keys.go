package membership

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// MaxKeys bounds the keys: each packet that none fits is tried with all.
const MaxKeys = 8

// Plaintext says whether gossip that is not encrypted is heard and sent although there are keys.
// From a cluster without keys to one with them lead three rolling restarts, in this order.
type Plaintext int

const (
	// NoPlaintext hears and sends what is encrypted, and nothing else.
	NoPlaintext Plaintext = iota
	// HearPlaintext hears both and sends what is encrypted.
	HearPlaintext
	// SpeakPlaintext hears both and sends plaintext.
	SpeakPlaintext
)

// keyring is what keys are changed with, one change after another.
type keyring struct {
	mu   locks.Mutex[keyring]
	ring *memberlist.Keyring // nil: gossip is not encrypted
}

// checkKeys says what cannot be a list of keys.
func checkKeys(keys [][]byte) error {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return fmt.Errorf("membership: %d keys, want 1 to %d", len(keys), MaxKeys)
	}
	for i, key := range keys {
		if err := memberlist.ValidateKey(key); err != nil {
			return fmt.Errorf("membership: key %d: want 16, 24 or 32 bytes, it has %d", i+1, len(key))
		}
	}
	return nil
}

// useKeys makes the gossip of mc encrypted where there are keys.
func (g *Gossip) useKeys(mc *memberlist.Config) error {
	if len(g.cfg.Keys) == 0 {
		return nil
	}
	if err := checkKeys(g.cfg.Keys); err != nil {
		return err
	}
	ring, err := memberlist.NewKeyring(g.cfg.Keys, g.cfg.Keys[0])
	if err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	g.keys.ring, mc.Keyring = ring, ring
	mc.GossipVerifyIncoming = g.cfg.Plaintext == NoPlaintext
	mc.GossipVerifyOutgoing = g.cfg.Plaintext != SpeakPlaintext
	return nil
}

// SetKeys replaces the keys, the first of which encrypts from now on. Where there were none at the
// start there cannot be any later, nor none where there were.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	g.keys.mu.Lock()
	defer g.keys.mu.Unlock()
	if g.keys.ring == nil {
		return errors.New("membership: gossip was begun without keys")
	}
	return replaceKeys(g.keys.ring, keys)
}

// replaceKeys takes keys away from the end only: taking one from the middle would move others about
// in a list that memberlist reads at that moment. One that has to go and come back for this is
// missing for an instant, which gossip gets over; the first one never is.
func replaceKeys(ring *memberlist.Keyring, keys [][]byte) error {
	if err := ring.AddKey(keys[0]); err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	if err := ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	have := slices.Clone(ring.GetKeys())
	stay := 1
	for stay < len(have) && slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, have[stay]) }) {
		stay++
	}
	for i := len(have) - 1; i >= stay; i-- {
		if err := ring.RemoveKey(have[i]); err != nil {
			return fmt.Errorf("membership: %w", err)
		}
	}
	for _, key := range keys {
		if err := ring.AddKey(key); err != nil {
			return fmt.Errorf("membership: %w", err)
		}
	}
	return nil
}
