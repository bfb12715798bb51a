package terminal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"unicode/utf8"
)

func TestShown(t *testing.T) {
	for _, try := range []struct{ text, want string }{
		{"", ""},
		{"readers", "readers"},
		{"Müller & Søn 漢字 🚀", "Müller & Søn 漢字 🚀"},
		{`a"b\n`, `a"b\n`},
		{"a\nb\tc", `"a\nb\tc"`},
		{"\x1b[2J\x07", `"\x1b[2J\a"`},
		{"\u009b2J", `"\u009b2J"`},
		{"\xff", `"\xff"`},
		{"\u202egnp.exe", `"\u202egnp.exe"`},
		{"a\u200bb\u2066\u00ad\ufeff", `"a\u200bb\u2066\u00ad\ufeff"`},
		{"a\u2028b\u00a0c", `"a\u2028b\u00a0c"`},
	} {
		if got := Shown(try.text); got != try.want {
			t.Errorf("%q is shown as %s, want %s", try.text, got, try.want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"a\n\tb", "\x1b]0;title\x07", "\u009b\u202e\u2066\ufeff", "\xff\xfe", "\U000e0001", "ü"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var out bytes.Buffer
		// In pieces that do not divide a character.
		for rest := text; len(rest) > 0; {
			_, n := utf8.DecodeRune(rest)
			fmt.Fprintf(Writer{&out}, "%s", rest[:n])
			rest = rest[n:]
		}
		if got := AppendText(nil, text); !bytes.Equal(got, out.Bytes()) {
			t.Errorf("at once %q, in pieces %q", got, out.Bytes())
		}
		for i, r := range out.String() {
			if !harmless(r, 1) && !(r == utf8.RuneError && utf8.ValidString(out.String()[i:])) {
				t.Errorf("%q has %q", out.String(), r)
			}
		}
		if s := Shown(string(text)); s != string(text) && !bytes.Equal(AppendText(nil, []byte(s)), []byte(s)) {
			t.Errorf("shown as %q", s)
		}
		// JSON says the same afterwards.
		before, err := json.Marshal(string(text))
		if err != nil {
			t.Fatal(err)
		}
		var was, is string
		if json.Unmarshal(before, &was) != nil || json.Unmarshal(AppendText(nil, before), &is) != nil || was != is {
			t.Errorf("JSON %s becomes %s", before, AppendText(nil, before))
		}
	})
}
