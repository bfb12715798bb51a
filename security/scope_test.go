package security

import (
	"strings"
	"testing"
)

func TestScope(t *testing.T) {
	s := Scope{
		{Resource: TopicResource, Name: "logs.", Prefix: true, Access: ReadAccess},
		{Resource: TopicResource, Name: "out", Access: WriteAccess},
		{Resource: GroupResource, Name: "g", Prefix: true},
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	for name, is := range map[string]bool{
		"reads by prefix": s.Reads("logs.a"), "the prefix itself": s.Reads("logs."), "writes by name": s.Writes("out"),
		"describes what it reads": s.Describes("logs.a"), "describes what it writes": s.Describes("out"),
		"group": s.Group("g1"), "any": s.WritesAny(),
		"not a part of a prefix": !s.Reads("logs"), "no writing where it reads": !s.Writes("logs.a"),
		"a name is no prefix": !s.Writes("out2"), "no reading where it writes": !s.Reads("out"),
		"other": !s.Describes("other"), "a group is no topic": !s.Describes("g1"), "a topic is no group": !s.Group("out"),
		"none": !Scope(nil).Reads("a") && !Scope(nil).WritesAny(),
	} {
		if !is {
			t.Error(name)
		}
	}
	for _, bad := range []Scope{
		nil, make(Scope, MaxGrants+1), {{Resource: "cluster", Name: "a"}}, {{Resource: TopicResource, Name: "a"}},
		{{Resource: TopicResource, Name: "a", Access: "all"}}, {{Resource: GroupResource, Name: "a", Access: ReadAccess}},
		{{Resource: GroupResource}}, {{Resource: GroupResource, Name: strings.Repeat("a", MaxName+1)}},
	} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if err := (Scope{{Resource: GroupResource, Prefix: true}}).Check(); err != nil {
		t.Errorf("every group: %v", err)
	}
}
