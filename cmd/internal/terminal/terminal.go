// Package terminal makes text from elsewhere fit for an operator's terminal.
//
// You are here: below the commands that people read. What a client called itself, its group or a
// record, and what a server says went wrong, may hold sequences that steer a terminal, turn the
// direction of text around, forge a line or break a table. Shown is for one such text among others;
// Writer is behind everything that is printed, so that what was not thought of does no harm either.
package terminal

import (
	"fmt"
	"io"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Shown gives a text as it is if every character of it is visible, else quoted as in Go:
// "a\x1b[2J", "\xff".
func Shown(s string) string {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
		i += n
	}
	return s
}

// harmless characters change nothing but the place of what follows.
func harmless(r rune, size int) bool {
	return r == '\n' || r == '\t' || unicode.IsGraphic(r) && !(r == utf8.RuneError && size == 1)
}

// AppendText appends text of several lines, in which what is not fit for a terminal is escaped: a
// character as \u009b, which in JSON says the same as the character, and a byte that is no
// character as \xff.
func AppendText(dst, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case harmless(r, n):
			dst = append(dst, text[:n]...)
		case r == utf8.RuneError && n == 1:
			dst = fmt.Appendf(dst, `\x%02x`, text[0])
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				dst = fmt.Appendf(dst, `\u%04x`, unit)
			}
		}
		text = text[n:]
	}
	return dst
}

// Writer escapes what is written through it with AppendText.
type Writer struct{ Raw io.Writer }

// Write implements io.Writer. A character must not be divided between two calls.
func (w Writer) Write(text []byte) (int, error) {
	if _, err := w.Raw.Write(AppendText(make([]byte, 0, len(text)), text)); err != nil {
		return 0, err
	}
	return len(text), nil
}
