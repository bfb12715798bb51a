package gateway

import (
	"encoding/json"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/outcome"
)

func TestAdminister(t *testing.T) {
	g := serve(t, newFake(t), nil)
	ask := func(request admin.Request) (answer admin.Answer) {
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		c := g.dial()
		c.send(raw(append(head(AdministerKey, 0), body...)...))
		frame, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(frame[14:], &answer); err != nil {
			t.Fatalf("%q: %v", frame, err)
		}
		return answer
	}
	if a := ask(admin.Request{Op: admin.OpDrain, Node: "n1"}); a.Error != "" {
		t.Error(a.Error)
	}
	if a := ask(admin.Request{Op: admin.OpReplace, Node: "n1"}); a.Error != outcome.ErrInvalidAssignment.Error() {
		t.Errorf("%q", a.Error)
	}
	for _, body := range []string{"", "{}{}", `{"op":"drain","more":1}`, "[]"} {
		c := g.dial()
		c.send(raw(append(head(AdministerKey, 0), body...)...))
		c.closed()
	}
}
