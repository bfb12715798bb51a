package oracle

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/xdg-go/scram"

	"github.com/trimaran-io/trimaran/test/harness"
)

// password is that of all users.
const password = "secret"

// salted is what a client sends of it.
func salted(mechanism int8, password string, salt []byte, iterations int) []byte {
	var sum func() hash.Hash = sha256.New
	size := sha256.Size
	if mechanism == 2 {
		sum, size = sha512.New, sha512.Size
	}
	key, err := pbkdf2.Key(sum, password, salt, iterations, size)
	if err != nil {
		panic(err) // in no mode where it could
	}
	return key
}

// credential is a user's entry in AlterUserScramCredentials.
func credential(user string, mechanism int8, iterations int) kmsg.AlterUserSCRAMCredentialsRequestUpsertion {
	salt := []byte("salt of a user")
	return kmsg.AlterUserSCRAMCredentialsRequestUpsertion{Name: user, Mechanism: mechanism, Iterations: int32(iterations), Salt: salt,
		SaltedPassword: salted(mechanism, password, salt, max(iterations, 1))}
}

// User creates a user of this case and waits until it can log in.
func (t *T) User() string {
	user := t.Name()
	t.Alias(user, "user")
	t.Alias("User:"+user, "User:user")
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	req.Upsertions = append(req.Upsertions, credential(user, 1, 4096))
	if code := t.ask(req).(*kmsg.AlterUserSCRAMCredentialsResponse).Results[0].ErrorCode; code != 0 {
		t.fail("creating %s: %s", user, errorName(code))
	}
	t.until("a login of "+user, func() bool {
		w, err := harness.DialWire(t.broker.SASL)
		if err != nil {
			t.fail("%v", err)
		}
		defer w.Close()
		return logIn(w, user, password) == nil
	})
	return user
}

// As goes on as that user, on a connection of its own; "" is nobody, who may do everything.
func (t *T) As(user string) {
	t.hangUp()
	t.user, t.guest = user, false
}

// Guest goes on where clients have to log in, without doing so.
func (t *T) Guest() {
	t.hangUp()
	t.user, t.guest = "", true
}

// Allow gives a user rights and waits until they hold. Each is "operation kind name".
func (t *T) Allow(user string, rights ...string) {
	t.permit(kmsg.ACLPermissionTypeAllow, user, rights...)
}

// Deny is Allow for ACLs that deny.
func (t *T) Deny(user string, rights ...string) {
	t.permit(kmsg.ACLPermissionTypeDeny, user, rights...)
}

func (t *T) permit(permission kmsg.ACLPermissionType, user string, rights ...string) {
	was := t.user
	t.As("")
	req := kmsg.NewPtrCreateACLsRequest()
	req.Version = 3
	for _, right := range rights {
		words := strings.Fields(right)
		c := kmsg.NewCreateACLsRequestCreation()
		op, err := kmsg.ParseACLOperation(words[0])
		kind, err2 := kmsg.ParseACLResourceType(words[1])
		if err := errors.Join(err, err2); err != nil {
			t.fail("%q: %v", right, err)
		}
		c.ResourceType, c.ResourceName, c.ResourcePatternType = kind, words[2], kmsg.ACLResourcePatternTypeLiteral
		c.Principal, c.Host, c.Operation, c.PermissionType = "User:"+user, "*", op, permission
		req.Creations = append(req.Creations, c)
	}
	for _, r := range t.ask(req).(*kmsg.CreateACLsResponse).Results {
		if r.ErrorCode != 0 {
			t.fail("creating ACLs: %s", errorName(r.ErrorCode))
		}
	}
	t.until("the ACLs of "+user, func() bool {
		found := t.acls(filterAny(func(f *kmsg.DescribeACLsRequest) { f.Principal = kmsg.StringPtr("User:" + user) }))
		return !slices.ContainsFunc(req.Creations, func(c kmsg.CreateACLsRequestCreation) bool {
			return !slices.Contains(found, aclLine(c.ResourceType, c.ResourceName, c.ResourcePatternType, c.Principal, c.Host, c.Operation, c.PermissionType))
		})
	})
	t.As(was)
}

// filterAny selects all ACLs, but as edit says.
func filterAny(edit func(*kmsg.DescribeACLsRequest)) *kmsg.DescribeACLsRequest {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.Version = 3
	req.ResourceType, req.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
	req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	edit(req)
	return req
}

// acls gives the ACLs that a filter selects, each as a line, sorted: brokers have them in no order.
func (t *T) acls(req *kmsg.DescribeACLsRequest) []string {
	answer, err := t.send(req)
	if err != nil {
		return []string{err.Error()}
	}
	resp := answer.(*kmsg.DescribeACLsResponse)
	if resp.ErrorCode != 0 {
		return []string{errorName(resp.ErrorCode)}
	}
	var lines []string
	for _, r := range resp.Resources {
		for _, a := range r.ACLs {
			lines = append(lines, aclLine(r.ResourceType, r.ResourceName, r.ResourcePatternType, a.Principal, a.Host, a.Operation, a.PermissionType))
		}
	}
	slices.Sort(lines)
	return lines
}

func aclLine(kind kmsg.ACLResourceType, name string, pattern kmsg.ACLResourcePatternType, principal, host string, op kmsg.ACLOperation, permission kmsg.ACLPermissionType) string {
	return fmt.Sprintf("%v %v %q %v %v %v %v", pattern, kind, name, principal, host, op, permission)
}

// logIn logs a connection in by SCRAM-SHA-256.
func logIn(w *harness.Wire, user, password string) error {
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		return err
	}
	hello := kmsg.NewPtrSASLHandshakeRequest()
	hello.Version, hello.Mechanism = 1, "SCRAM-SHA-256"
	resp, err := w.Ask(hello)
	if err != nil {
		return err
	}
	if code := resp.(*kmsg.SASLHandshakeResponse).ErrorCode; code != 0 {
		return errors.New(errorName(code))
	}
	for conversation, said := client.NewConversation(), ""; !conversation.Done(); {
		if said, err = conversation.Step(said); err != nil {
			return err
		}
		if conversation.Done() {
			break
		}
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.Version, req.SASLAuthBytes = 2, []byte(said)
		resp, err := w.Ask(req)
		if err != nil {
			return err
		}
		r := resp.(*kmsg.SASLAuthenticateResponse)
		if r.ErrorCode != 0 {
			return errors.New(errorName(r.ErrorCode))
		}
		said = string(r.SASLAuthBytes)
	}
	return nil
}

// sorted writes lines down in their order, indented.
func (t *T) sorted(lines []string) {
	slices.Sort(lines)
	for _, l := range lines {
		t.Say("  %s", l)
	}
}
