package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
	"github.com/trimaran-io/trimaran/security/scram"
)

// ACLs are created, described and deleted by Kafka's requests, in all their versions.
func TestACLsByKafkasRequests(t *testing.T) {
	for version := int16(0); version <= 3; version++ {
		f := newFake(t)
		g := judged(t, f, nil)
		g.as(asSuper)
		c := g.dial()
		create := kmsg.NewPtrCreateACLsRequest()
		create.Version = version
		one := func(name, principal, host string, op kmsg.ACLOperation, permission kmsg.ACLPermissionType) {
			n := kmsg.NewCreateACLsRequestCreation()
			n.ResourceType, n.ResourceName, n.Principal, n.Host, n.Operation, n.PermissionType = 2, name, principal, host, op, permission
			create.Creations = append(create.Creations, n)
		}
		one("events", "User:a", "*", kmsg.ACLOperationRead, 3)
		one("events", "User:a", "0:0:0:0:0:0:0:1", kmsg.ACLOperationWrite, 2)
		one("", "User:a", "*", kmsg.ACLOperationRead, 3)
		one("x", "alice", "*", kmsg.ACLOperationRead, 3)
		one("x", "User:a", "example.org", kmsg.ACLOperationRead, 3)
		one("x", "User:a", "*", kmsg.ACLOperationAny, 3)
		one("x", "User:a", "*", kmsg.ACLOperationRead, 1)
		one("events", "User:a", "*", kmsg.ACLOperationRead, 3)
		results := c.ask(create).(*kmsg.CreateACLsResponse).Results
		for i, want := range []int16{0, 0, 42, 42, 42, 42, 42, 0} {
			if results[i].ErrorCode != want || (want != 0) != (results[i].ErrorMessage != nil) {
				t.Errorf("version %d, entry %d: %+v, want %d", version, i, results[i], want)
			}
		}
		described := func(change func(*kmsg.DescribeACLsRequest)) *kmsg.DescribeACLsResponse {
			req := kmsg.NewPtrDescribeACLsRequest()
			req.Version, req.ResourceType, req.Operation, req.PermissionType = version, 1, 1, 1
			change(req)
			return c.ask(req).(*kmsg.DescribeACLsResponse)
		}
		all := described(func(*kmsg.DescribeACLsRequest) {})
		if all.ErrorCode != 0 || len(all.Resources) != 1 || all.Resources[0].ResourceName != "events" || len(all.Resources[0].ACLs) != 2 {
			t.Errorf("version %d: %+v", version, all)
		}
		host := "::0001"
		if by := described(func(r *kmsg.DescribeACLsRequest) { r.Host = &host }); len(by.Resources) != 1 || len(by.Resources[0].ACLs) != 1 || by.Resources[0].ACLs[0].Host != "::1" {
			t.Errorf("version %d, by host: %+v", version, by)
		}
		if bad := described(func(r *kmsg.DescribeACLsRequest) { r.Operation = 99 }); bad.ErrorCode != kerr.InvalidRequest.Code {
			t.Errorf("version %d, an operation that is none: %+v", version, bad)
		}
		remove := kmsg.NewPtrDeleteACLsRequest()
		remove.Version = version
		filter := kmsg.NewDeleteACLsRequestFilter()
		filter.ResourceType, filter.Operation, filter.PermissionType = 2, kmsg.ACLOperationWrite, 1
		bad := filter
		bad.ResourceType = 0
		remove.Filters = []kmsg.DeleteACLsRequestFilter{bad, filter}
		deleted := c.ask(remove).(*kmsg.DeleteACLsResponse).Results
		if deleted[0].ErrorCode != kerr.InvalidRequest.Code || deleted[1].ErrorCode != 0 || len(deleted[1].MatchingACLs) != 1 || deleted[1].MatchingACLs[0].Host != "::1" {
			t.Errorf("version %d: deleted %+v", version, deleted)
		}
		if left := f.Topics().Security().ACLs().All(); len(left) != 1 || left[0].Operation != acl.Read {
			t.Errorf("version %d: left %v", version, left)
		}
	}
}

// A request has so many entries, and a cluster so many ACLs.
func TestACLsAreBounded(t *testing.T) {
	f := newFake(t)
	g := judged(t, f, nil)
	g.as(asSuper)
	c := g.dial()
	create := func(from, n int) []kmsg.CreateACLsResponseResult {
		req := kmsg.NewPtrCreateACLsRequest()
		req.Version = 1
		for i := range n {
			one := kmsg.NewCreateACLsRequestCreation()
			one.ResourceType, one.ResourcePatternType, one.ResourceName, one.Principal, one.Host, one.Operation, one.PermissionType = 2, 3, fmt.Sprint("t", from+i), "User:a", "*", 3, 3
			req.Creations = append(req.Creations, one)
		}
		return c.ask(req).(*kmsg.CreateACLsResponse).Results
	}
	if r := create(0, acl.MaxRequest+1); r[0].ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("%+v", r[0])
	}
	for i := range acl.MaxBindings / acl.MaxRequest {
		if r := create(i*acl.MaxRequest, acl.MaxRequest); r[0].ErrorCode != 0 {
			t.Fatalf("%+v", r[0])
		}
	}
	if r := create(acl.MaxBindings, 1); r[0].ErrorCode != kerr.PolicyViolation.Code || !strings.Contains(*r[0].ErrorMessage, "10000") {
		t.Errorf("%+v", r[0])
	}
}

// Users come and go by KIP-554, whether rights are judged or not, and nothing secret is told.
func TestScramUsers(t *testing.T) {
	f := newFake(t)
	c := serve(t, f, nil).dial()
	alter := func(change func(*kmsg.AlterUserSCRAMCredentialsRequest)) map[string]int16 {
		t.Helper()
		req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
		change(req)
		codes := map[string]int16{}
		for _, r := range c.ask(req).(*kmsg.AlterUserSCRAMCredentialsResponse).Results {
			if _, twice := codes[r.User]; twice {
				t.Errorf("%s is answered twice", r.User)
			}
			codes[r.User] = r.ErrorCode
		}
		return codes
	}
	set := func(req *kmsg.AlterUserSCRAMCredentialsRequest, user string, mechanism int8, iterations int32, size int) {
		req.Upsertions = append(req.Upsertions, upsertion(user, mechanism, iterations, size).Upsertions...)
	}
	remove := func(req *kmsg.AlterUserSCRAMCredentialsRequest, user string, mechanism int8) {
		req.Deletions = append(req.Deletions, kmsg.AlterUserSCRAMCredentialsRequestDeletion{Name: user, Mechanism: mechanism})
	}
	codes := alter(func(r *kmsg.AlterUserSCRAMCredentialsRequest) {
		set(r, "both", 1, 8192, 32)
		set(r, "both", 2, 8192, 64)
		set(r, "", 1, 4096, 32)
		set(r, "few", 1, 4095, 32)
		set(r, "many", 1, 16385, 32)
		set(r, "other", 3, 4096, 32)
		set(r, "short", 1, 4096, 31)
		set(r, "twice", 1, 4096, 32)
		set(r, "twice", 1, 4096, 32)
		set(r, "half", 1, 4096, 32)
		set(r, "half", 2, 1, 64)
		remove(r, "nobody", 1)
		remove(r, "new", 1)
		set(r, "new", 1, 4096, 32)
		set(r, strings.Repeat("x", 250), 1, 4096, 32)
	})
	bad := kerr.UnacceptableCredential.Code
	for user, want := range map[string]int16{
		"both": 0, "": bad, "few": bad, "many": bad, "other": kerr.UnsupportedSaslMechanism.Code, "short": bad,
		"twice": kerr.DuplicateResource.Code, "half": bad, "nobody": kerr.ResourceNotFound.Code,
		"new": kerr.ResourceNotFound.Code, strings.Repeat("x", 250): bad,
	} {
		if codes[user] != want {
			t.Errorf("user %.10q: code %d, want %d", user, codes[user], want)
		}
	}
	known := f.Topics().Security()
	if all := known.Credentials(); len(all) != 2 {
		t.Fatalf("%v", all)
	}
	kept, _ := known.Scram("both", security.ScramSHA512)
	stored, server := scram.Keys(security.ScramSHA512, make([]byte, 64))
	if string(kept.StoredKey) != string(stored) || string(kept.ServerKey) != string(server) || string(kept.Salt) != "salt" || kept.Iterations != 8192 {
		t.Error("another credential is kept than was sent")
	}
	describe := func(users ...string) map[string]string {
		req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		for _, u := range users {
			req.Users = append(req.Users, kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: u})
		}
		resp := c.ask(req).(*kmsg.DescribeUserSCRAMCredentialsResponse)
		if strings.Contains(string(resp.AppendTo(nil)), "salt") {
			t.Error("the answer has a salt")
		}
		told := map[string]string{}
		for _, r := range resp.Results {
			told[r.User] = fmt.Sprint(r.ErrorCode, " ")
			for _, i := range r.CredentialInfos {
				told[r.User] += fmt.Sprint(i.Mechanism, ":", i.Iterations, " ")
			}
		}
		return told
	}
	if got := describe(); len(got) != 1 || got["both"] != "0 1:8192 2:8192 " {
		t.Errorf("%v", got)
	}
	if got := describe("both", "nobody", "both"); got["both"] != "92 " || got["nobody"] != "91 " {
		t.Errorf("%v", got)
	}
	if codes := alter(func(r *kmsg.AlterUserSCRAMCredentialsRequest) { remove(r, "both", 1) }); codes["both"] != 0 {
		t.Errorf("%v", codes)
	}
	if got := describe("both"); got["both"] != "0 2:8192 " {
		t.Errorf("%v", got)
	}
}

// Rights that were just given hold for the next request of the connection.
func TestAnAnsweredACLHolds(t *testing.T) {
	f := newFake(t, "events")
	g := judged(t, f, nil)
	alices, roots := g.dial(), g.dial()
	as := func(super bool) {
		g.as(func(listen.Client) security.Identity {
			return security.Identity{Principal: security.User("alice"), Local: super}
		})
	}
	for range 3 {
		for _, allowed := range []bool{true, false} {
			as(true)
			if allowed {
				req := kmsg.NewPtrCreateACLsRequest()
				one := kmsg.NewCreateACLsRequestCreation()
				one.ResourceType, one.ResourceName, one.Principal, one.Host, one.Operation, one.PermissionType = 2, "events", alice, "*", 3, 3
				req.Creations = append(req.Creations, one)
				roots.ask(req)
			} else {
				req := kmsg.NewPtrDeleteACLsRequest()
				filter := kmsg.NewDeleteACLsRequestFilter()
				filter.ResourceType, filter.Operation, filter.PermissionType = 1, 1, 1
				req.Filters = append(req.Filters, filter)
				roots.ask(req)
			}
			as(false)
			if got := alices.ask(fetchAt(11, f, 0, 1, "events")).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode; (got == 0) != allowed {
				t.Fatalf("allowed %v: code %d", allowed, got)
			}
		}
	}
}
