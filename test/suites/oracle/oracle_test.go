package oracle

import (
	"slices"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Trimaran answers as Kafka does, but where the file says why not.
func TestAnswersAreKafkas(t *testing.T) {
	open, secured := harness.New(t, NodeOptions()), harness.New(t, SecuredOptions())
	for _, s := range Suites {
		t.Run(s.Name, func(t *testing.T) {
			want, err := s.read()
			if err != nil {
				t.Fatal(err)
			}
			c := open
			if s.Secured {
				c = secured
			}
			got, err := s.Answers(Of(c.Node(1)))
			if err != nil {
				t.Fatal(err)
			}
			if len(want) != len(s.Cases) {
				t.Errorf("%d cases, and the file has %d: run make oracle", len(s.Cases), len(want))
			}
			for i, w := range want[:min(len(want), len(s.Cases))] {
				if w.name != s.Cases[i].Name {
					t.Fatalf("case %q, and the file has %q there: run make oracle", s.Cases[i].Name, w.name)
				}
				for _, h := range w.hunks {
					if !h.same() && h.reason == "" {
						t.Errorf("%s: nothing says why the answers differ:\n%s", w.name, strings.Join(slices.Concat([]string{"Kafka:"}, h.kafka, []string{"Trimaran:"}, h.trimaran), "\n  "))
					}
				}
				if slices.Equal(got[i], w.want()) {
					continue
				}
				var b strings.Builder
				for _, h := range differences(w.want(), got[i]) {
					write(&b, both, h.both)
					write(&b, "want ", h.kafka)
					write(&b, "got  ", h.trimaran)
				}
				t.Errorf("%s:\n%s", w.name, b.String())
			}
		})
	}
}

// A difference that nobody explains is noticed, and what is written is read again.
func TestFilesAreReadAsTheyAreWritten(t *testing.T) {
	kafka := []string{"one", "two", "three", "four"}
	trimaran := []string{"one", "2", "three", "four", "five"}
	var a answers
	a.hunks = differences(kafka, trimaran)
	if !slices.Equal(a.want(), trimaran) || len(a.hunks) != 2 {
		t.Errorf("%+v", a.hunks)
	}
	for _, s := range Suites {
		names := map[string]bool{}
		for _, c := range s.Cases {
			if names[c.Name] {
				t.Errorf("%s: two cases are named %q", s.Name, c.Name)
			}
			names[c.Name] = true
		}
	}
}
