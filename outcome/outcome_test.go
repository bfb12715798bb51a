package outcome

import (
	"errors"
	"fmt"
	"testing"
)

func TestErrorsHaveTextsAndCodes(t *testing.T) {
	seen := map[string]bool{}
	for e := ErrUnknown; e < lastError; e++ {
		if e.Error() == "" || seen[e.Error()] {
			t.Errorf("error %d has no text of its own", e)
		}
		seen[e.Error()] = true
		for _, wrapped := range []error{e, fmt.Errorf("while appending: %w", e), errors.Join(errors.New("x"), e), coded{e, errors.New("x")}} {
			if Code(wrapped) != e {
				t.Errorf("Code(%v) is %d, want %d", wrapped, Code(wrapped), e)
			}
		}
	}
	for _, e := range []Error{0, lastError, 9999} { // as another node may send them
		if e.Error() != "unlisted error" || Code(e) != ErrUnknown {
			t.Errorf("error %d is taken for one of the list", e)
		}
	}
	if Code(nil) != 0 || Code(errors.New("x")) != ErrUnknown {
		t.Error("no error, or one from elsewhere, has a wrong code")
	}
}

// Trying again after these is safe, and after no others: a record that may be in
// the log must not be written twice.
func TestOnlyWhatIsSurelyNotAppendedIsTriedAgain(t *testing.T) {
	safe := map[Error]bool{ErrNotLeader: true, ErrNoLeader: true, ErrVoid: true, ErrShuttingDown: true}
	for e := ErrUnknown; e < lastError; e++ {
		if NotAppended(fmt.Errorf("x: %w", e)) != safe[e] {
			t.Errorf("NotAppended(%v) is %v", e, !safe[e])
		}
	}
	if NotAppended(nil) || NotAppended(errors.New("x")) {
		t.Error("an unknown error is taken for a safe one")
	}
}
