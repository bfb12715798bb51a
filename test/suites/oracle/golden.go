package oracle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/test/harness"
)

// answers is what a file says of one case.
type answers struct {
	name  string
	hunks []hunk
}

// hunk is lines that both answer, and then where they differ.
type hunk struct {
	both            []string
	kafka, trimaran []string
	reason          string // "" and a difference: not filled in yet
}

const (
	both         = "  "
	kafkaOnly    = "- "
	trimaranOnly = "+ "
	because      = "# because "
)

// Path is the file of a suite.
func (s Suite) Path() string {
	return filepath.Join(harness.Root(), "test", "suites", "oracle", "testdata", s.Name+".txt")
}

func (s Suite) title() string {
	return "# Recorded by make oracle from Kafka " + s.Kafka + ". See the package comment."
}

// Read reads the suite's file.
func (s Suite) read() ([]answers, error) {
	b, err := os.ReadFile(s.Path())
	if err != nil {
		return nil, err
	}
	var all []answers
	for i, line := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		bad := func(why string) error { return fmt.Errorf("%s:%d: %s", s.Path(), i+1, why) }
		switch {
		case i == 0:
			if line != s.title() {
				return nil, bad("want the line " + s.title())
			}
			continue
		case line == "":
			continue
		case strings.HasPrefix(line, "= "):
			all = append(all, answers{name: line[2:]})
			continue
		case len(all) == 0 || len(line) < 2:
			return nil, bad("no case begins here")
		}
		c := &all[len(all)-1]
		last := len(c.hunks) - 1
		rest := line[2:]
		switch {
		case strings.HasPrefix(line, strings.TrimRight(because, " ")):
			if last < 0 || c.hunks[last].same() {
				return nil, bad("a reason, and no difference")
			}
			c.hunks[last].reason = strings.TrimSpace(strings.TrimPrefix(line, strings.TrimRight(because, " ")))
		case line[:2] == both:
			if last < 0 || !c.hunks[last].same() {
				c.hunks = append(c.hunks, hunk{})
				last++
			}
			c.hunks[last].both = append(c.hunks[last].both, rest)
		case line[:2] == kafkaOnly, line[:2] == trimaranOnly:
			if last < 0 || c.hunks[last].reason != "" || line[:2] == kafkaOnly && len(c.hunks[last].trimaran) > 0 {
				c.hunks = append(c.hunks, hunk{})
				last++
			}
			if line[:2] == kafkaOnly {
				c.hunks[last].kafka = append(c.hunks[last].kafka, rest)
			} else {
				c.hunks[last].trimaran = append(c.hunks[last].trimaran, rest)
			}
		default:
			return nil, bad("not understood")
		}
	}
	return all, nil
}

func (h hunk) same() bool { return len(h.kafka) == 0 && len(h.trimaran) == 0 }

// Write writes the suite's file from what both answered, and keeps the reasons that it
// had. It gives the number of differences without a reason.
func (s Suite) Write(kafka, trimaran [][]string) (unexplained int, err error) {
	reasons := map[string]string{}
	old, err := s.read()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	for _, c := range old {
		for _, h := range c.hunks {
			reasons[h.key(c.name)] = h.reason
		}
	}
	var b strings.Builder
	b.WriteString(s.title() + "\n")
	for i, c := range s.Cases {
		fmt.Fprintf(&b, "\n= %s\n", c.Name)
		for _, h := range differences(kafka[i], trimaran[i]) {
			write(&b, both, h.both)
			write(&b, kafkaOnly, h.kafka)
			write(&b, trimaranOnly, h.trimaran)
			if h.same() {
				continue
			}
			reason := reasons[h.key(c.Name)]
			if reason == "" {
				unexplained++
			}
			b.WriteString(strings.TrimRight(because+reason, " ") + "\n")
		}
	}
	return unexplained, os.WriteFile(s.Path(), []byte(b.String()), 0o666)
}

// key tells a difference from others.
func (h hunk) key(name string) string {
	return name + "\n" + strings.Join(h.kafka, "\n") + "\n+\n" + strings.Join(h.trimaran, "\n")
}

func write(b *strings.Builder, prefix string, lines []string) {
	for _, l := range lines {
		b.WriteString(prefix + l + "\n")
	}
}

// differences puts two texts beside each other, by their longest common subsequence.
func differences(a, b []string) []hunk {
	longest := make([][]int, len(a)+1)
	for i := range longest {
		longest[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			} else {
				longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			}
		}
	}
	hunks := []hunk{{}}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		h := &hunks[len(hunks)-1]
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			if !h.same() {
				hunks = append(hunks, hunk{})
				h = &hunks[len(hunks)-1]
			}
			h.both = append(h.both, a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && longest[i+1][j] >= longest[i][j+1]:
			h.kafka = append(h.kafka, a[i])
			i++
		default:
			h.trimaran = append(h.trimaran, b[j])
			j++
		}
	}
	return hunks
}

// want gives what the file says that Trimaran answers in a case.
func (a answers) want() []string {
	var lines []string
	for _, h := range a.hunks {
		lines = slices.Concat(lines, h.both, h.trimaran)
	}
	return lines
}
