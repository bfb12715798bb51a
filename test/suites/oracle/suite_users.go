package oracle

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

type (
	upsertion = kmsg.AlterUserSCRAMCredentialsRequestUpsertion
	deletion  = kmsg.AlterUserSCRAMCredentialsRequestDeletion
)

// alterUsers writes down the error of each user.
func (t *T) alterUsers(what string, set []upsertion, remove ...deletion) {
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	req.Upsertions, req.Deletions = set, remove
	resp, err := t.send(req)
	if err != nil {
		t.Say("%s: %v", what, err)
		return
	}
	var lines []string
	for _, r := range resp.(*kmsg.AlterUserSCRAMCredentialsResponse).Results {
		lines = append(lines, fmt.Sprintf("%.40s: ", t.replaced(r.User))+errorName(r.ErrorCode))
	}
	t.Say("%s:", what)
	t.sorted(lines)
}

// describeUsers writes down what is said of users.
func (t *T) describeUsers(users ...string) {
	req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	for _, u := range users {
		req.Users = append(req.Users, kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: u})
	}
	resp := t.ask(req).(*kmsg.DescribeUserSCRAMCredentialsResponse)
	t.Say("describe: %s", errorName(resp.ErrorCode))
	for _, r := range resp.Results {
		t.Say("  %s: %s", t.replaced(r.User), errorName(r.ErrorCode))
		var lines []string // in no order
		for _, c := range r.CredentialInfos {
			lines = append(lines, fmt.Sprintf("mechanism %d, %d iterations", c.Mechanism, c.Iterations))
		}
		t.sorted(lines)
	}
}

// settleUser waits until the broker knows so many credentials of a user.
func (t *T) settleUser(user string, mechanisms int) {
	req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	req.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: user}}
	t.until("the credentials of "+user, func() bool {
		r := t.ask(req).(*kmsg.DescribeUserSCRAMCredentialsResponse).Results
		return len(r) == 1 && len(r[0].CredentialInfos) == mechanisms
	})
}

func (t *T) userName() string {
	name := t.Name()
	t.Alias(name, "user")
	return name
}

var userCases = []Case{
	{"versions", func(t *T) {
		t.Hello(50)
		t.Hello(51)
	}},
	{"create, describe, delete", func(t *T) {
		user := t.userName()
		t.alterUsers("create", []upsertion{credential(user, 1, 4096)})
		t.settleUser(user, 1)
		t.describeUsers(user)
		t.alterUsers("another mechanism", []upsertion{credential(user, 2, 8192)})
		t.settleUser(user, 2)
		t.describeUsers(user)
		t.alterUsers("delete", nil, deletion{Name: user, Mechanism: 1})
		t.settleUser(user, 1)
		t.describeUsers(user)
		t.alterUsers("delete again", nil, deletion{Name: user, Mechanism: 1})
		t.alterUsers("delete the last", nil, deletion{Name: user, Mechanism: 2})
		t.settleUser(user, 0)
		t.describeUsers(user)
	}},
	{"both mechanisms in a request", func(t *T) {
		user := t.userName()
		t.alterUsers("create", []upsertion{credential(user, 1, 4096), credential(user, 2, 4096)})
	}},
	{"a user twice in a request", func(t *T) {
		user := t.userName()
		t.alterUsers("create twice", []upsertion{credential(user, 1, 4096), credential(user, 1, 8192)})
		t.alterUsers("create and delete", []upsertion{credential(user, 1, 4096)}, deletion{Name: user, Mechanism: 1})
		t.alterUsers("delete twice", nil, deletion{Name: user, Mechanism: 1}, deletion{Name: user, Mechanism: 1})
	}},
	{"iterations", func(t *T) {
		for _, n := range []int{-1, 0, 4095, 4096, 16384, 16385} {
			user := t.Name()
			t.Alias(user, "user")
			t.alterUsers("256", []upsertion{credential(user, 1, n)})
			t.alterUsers("512", []upsertion{credential(user, 2, n)})
		}
	}},
	{"mechanisms", func(t *T) {
		user := t.userName()
		for _, m := range []int8{-1, 0, 3} {
			t.alterUsers("create", []upsertion{credential(user, m, 4096)})
			t.alterUsers("delete", nil, deletion{Name: user, Mechanism: m})
		}
	}},
	{"names", func(t *T) {
		for _, name := range []string{"", "a b", "a,b=c", "pä§§", "User:a", "*", strings.Repeat("x", 249), strings.Repeat("x", 250)} {
			t.alterUsers("create", []upsertion{credential(name, 1, 4096)})
			t.alterUsers("delete", nil, deletion{Name: name, Mechanism: 2})
		}
	}},
	{"salts and passwords", func(t *T) {
		for _, edit := range []func(*upsertion){
			func(u *upsertion) { u.Salt = nil },
			func(u *upsertion) { u.SaltedPassword = nil },
			func(u *upsertion) { u.SaltedPassword = u.SaltedPassword[1:] },
		} {
			user := t.Name()
			t.Alias(user, "user")
			u := credential(user, 1, 4096)
			edit(&u)
			t.alterUsers("create", []upsertion{u})
		}
	}},
	{"good and bad users in a request", func(t *T) {
		good, bad := t.Name(), t.Name()
		t.Alias(good, "good")
		t.Alias(bad, "bad")
		t.alterUsers("create", []upsertion{credential(good, 1, 4096), credential(bad, 1, 1)}, deletion{Name: "nobody", Mechanism: 1})
		t.settleUser(good, 1)
		t.describeUsers(bad)
		t.alterUsers("nothing", nil)
	}},
	{"describe", func(t *T) {
		t.describeUsers("nobody")
		t.describeUsers("nobody", "nobody")
		t.describeUsers("")
	}},
}
