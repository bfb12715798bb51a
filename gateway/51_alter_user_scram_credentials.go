package gateway

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/security/scram"
)

// AlterUserScramCredentials, version 0 (KIP-554).
//
// Kept: the client sends a salted password and never the password; the node keeps what can be
// checked with (StoredKey, ServerKey) and forgets it. Users fail one by one, and all that is
// asked for one user fails together: UNACCEPTABLE_CREDENTIAL for an empty name or iterations that
// are too few or too many, UNSUPPORTED_SASL_MECHANISM, RESOURCE_NOT_FOUND for what is to be deleted
// and is not there, DUPLICATE_RESOURCE for a mechanism of a user twice.
//
// Differs: both mechanisms of a user may be altered in one request, as with ZooKeeper and as
// kafka-configs does it; Kafka's own controller refuses that. Users can be created while nobody has
// to log in.

func handleAlterUserScramCredentials(r *request) {
	req := r.body.(*kmsg.AlterUserSCRAMCredentialsRequest)
	r.background(func() {
		failures, alter := r.scramChanges(req)
		var err error
		if len(alter.Set)+len(alter.Delete) > 0 {
			err = r.admin(alterTimeoutMillis, 1, func(ctx context.Context, _ int) error {
				return r.conn.server.changes.AlterCredentials(ctx, alter)
			})[0]
		}
		r.answerScramUsers(req, func(user string) (*kerr.Error, string) {
			if f, failed := failures[user]; failed {
				return f.failure, f.why
			}
			if err != nil {
				return kafkaError(err), message(err)
			}
			return nil, ""
		})
	})
}

type scramFailure struct {
	failure *kerr.Error
	why     string
}

// scramChanges gives the changes that can be made, and why those of other users cannot.
func (r *request) scramChanges(req *kmsg.AlterUserSCRAMCredentialsRequest) (map[string]scramFailure, fsm.AlterCredentials) {
	known := r.conn.server.catalog.Topics().Security()
	failures := map[string]scramFailure{}
	seen := map[fsm.CredentialName]bool{}
	// The first that is wrong about a user is what is said, as in Kafka.
	fail := func(user string, failure *kerr.Error, why string) {
		if _, failed := failures[user]; !failed {
			failures[user] = scramFailure{failure, why}
		}
	}
	// named says whether the name can be, once for a user's mechanism.
	named := func(user string, number int8, deletes bool) (fsm.CredentialName, bool) {
		name := fsm.CredentialName{User: user, Mechanism: scramMechanisms[number]}
		_, there := known.Scram(name.User, name.Mechanism)
		switch {
		case user == "" || len(user) > fsm.MaxUserName:
			fail(user, kerr.UnacceptableCredential, fmt.Sprintf("a user's name has 1 to %d bytes", fsm.MaxUserName))
		case name.Mechanism == "":
			fail(user, kerr.UnsupportedSaslMechanism, "unknown SCRAM mechanism")
		case deletes && !there:
			fail(user, kerr.ResourceNotFound, "there is no such credential to delete")
		case seen[name]:
			fail(user, kerr.DuplicateResource, "a user's credential cannot be altered twice in one request")
		}
		seen[name] = true
		_, failed := failures[user]
		return name, !failed
	}
	var all fsm.AlterCredentials
	for _, d := range req.Deletions {
		if name, ok := named(d.Name, d.Mechanism, true); ok {
			all.Delete = append(all.Delete, name)
		}
	}
	for _, u := range req.Upsertions {
		name, ok := named(u.Name, u.Mechanism, false)
		if !ok {
			continue
		}
		c := fsm.Credential{User: name.User, Mechanism: name.Mechanism, Salt: u.Salt, Iterations: int(u.Iterations)}
		c.StoredKey, c.ServerKey = scram.Keys(name.Mechanism, u.SaltedPassword)
		if len(u.SaltedPassword) != len(c.StoredKey) {
			fail(u.Name, kerr.UnacceptableCredential, fmt.Sprintf("a salted password of %d bytes, want %d", len(u.SaltedPassword), len(c.StoredKey)))
		} else if err := c.Check(); err != nil {
			fail(u.Name, kerr.UnacceptableCredential, message(err))
		}
		all.Set = append(all.Set, c)
	}
	var alter fsm.AlterCredentials
	for _, c := range all.Set {
		if _, failed := failures[c.User]; !failed {
			alter.Set = append(alter.Set, c)
		}
	}
	for _, name := range all.Delete {
		if _, failed := failures[name.User]; !failed {
			alter.Delete = append(alter.Delete, name)
		}
	}
	return failures, alter
}

// answerScramUsers answers with what result says of each user that is named, once.
func (r *request) answerScramUsers(req *kmsg.AlterUserSCRAMCredentialsRequest, result func(user string) (*kerr.Error, string)) {
	resp := req.ResponseKind().(*kmsg.AlterUserSCRAMCredentialsResponse)
	answered := map[string]bool{}
	add := func(user string) {
		if answered[user] {
			return
		}
		answered[user] = true
		out := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		out.User = user
		if failure, why := result(user); failure != nil {
			out.ErrorCode, out.ErrorMessage = r.note(failure.Code), &why
		}
		resp.Results = append(resp.Results, out)
	}
	for _, d := range req.Deletions {
		add(d.Name)
	}
	for _, u := range req.Upsertions {
		add(u.Name)
	}
	r.answer(resp)
}
