package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// ErrNewer is in every error about a command, a snapshot or a question that a newer program wrote.
// Its state machine did something with it, so one that does not know what must not go on: it would
// become another. Apply changes nothing then, not even the index, and whoever called it stops the
// group here. Bytes that no program ever wrote are something else: they change nothing anywhere.
var ErrNewer = errors.New("written by a newer program")

// newerError is ErrNewer, and ErrFeatureLevel to who asked for it.
type newerError struct{ what string }

func (e newerError) Error() string   { return e.what + ", " + ErrNewer.Error() + ": start that one" }
func (e newerError) Unwrap() []error { return []error{outcome.ErrFeatureLevel, ErrNewer} }

func newer(format string, args ...any) error { return newerError{fmt.Sprintf(format, args...)} }

// DecodeStrictly decodes one JSON value and takes no field that it does not know: whoever wrote it
// relies on it. The error wraps ErrNewer if that is all that is wrong, else ErrUnknown.
func DecodeStrictly(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err != nil {
		if json.Unmarshal(data, into) == nil {
			return newer("%v", err)
		}
		return fmt.Errorf("%w: %w", outcome.ErrUnknown, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: more than one JSON value", outcome.ErrUnknown)
	}
	return nil
}

// levelChecked is the level from which on no leader of the catalog proposes a name, word or value
// that it does not know. Programs of lower levels do, and such commands have no effect.
const levelChecked = 3

// checkWords says whether names, words and values of a command are known, whatever the catalog
// holds. The error is ErrInvalidConfig.
func (c *CatalogCommand) checkWords() error {
	switch {
	case c.CreateTopic != nil:
		return CheckConfigs(c.CreateTopic.Topic.Configs)
	case c.SetNodeState != nil:
		return c.SetNodeState.State.check()
	case c.AlterConfigs != nil:
		return checkChanges(c.AlterConfigs.Changes, func(name string) (Config, error) {
			config, known := LookupConfig(name)
			if !known {
				return config, fmt.Errorf("%w: no configuration is named %q", outcome.ErrInvalidConfig, name)
			}
			return config, nil
		})
	case c.AlterBrokerConfigs != nil:
		return checkChanges(c.AlterBrokerConfigs.Changes, LookupBrokerConfig)
	case c.AlterCredentials != nil:
		for _, set := range c.AlterCredentials.Set {
			if err := checkMechanism(set.Mechanism); err != nil {
				return err
			}
		}
	case c.AlterACLs != nil:
		for _, b := range c.AlterACLs.Add {
			if err := b.Known(); err != nil {
				return outcome.With(outcome.ErrInvalidConfig, err)
			}
		}
	}
	return nil
}

func checkChanges(changes []ConfigChange, lookup func(name string) (Config, error)) error {
	for _, change := range changes {
		config, err := lookup(change.Name)
		if err != nil {
			return err
		}
		switch change.Op {
		case SetConfig:
			if err := config.Check(change.Value); err != nil {
				return err
			}
		case DeleteConfig, AppendConfig, SubtractConfig:
		default:
			return fmt.Errorf("%w: %s: operation %q", outcome.ErrInvalidConfig, config.Name, change.Op)
		}
	}
	return nil
}

// magicAt is where a record batch says of which format it is (magic, RecordBatch of Kafka).
const (
	magicAt    = 16
	magicKnown = 2
)

// knownControl says whether this program knows a control command of a partition's log. The error is
// ErrNewer.
func knownControl(data []byte) error {
	if len(data) > 0 && (data[0] > controlLast || data[0] == controlLogStart && len(data) > logStartSize) {
		return newer("control command %#x of %d bytes", data[0], len(data))
	}
	return nil
}

// newerBatch says whether bytes that are no record batch to this program, for that reason, are one
// to a newer one. The error is ErrNewer.
func newerBatch(why error, data []byte) error {
	if errors.Is(why, kafkaproto.ErrUnknownMagic) && int8(data[magicAt]) > magicKnown {
		return newer("record batch of format %d", data[magicAt])
	}
	return nil
}
