package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/security"
)

// DescribeUserScramCredentials, version 0 (KIP-554).
//
// Kept: mechanisms and iterations, and nothing that is secret, of all users, or of those named; a
// user whom nobody has created is RESOURCE_NOT_FOUND, one who is named twice DUPLICATE_RESOURCE.

// scramMechanisms are Kafka's numbers of the mechanisms.
var scramMechanisms = map[int8]string{1: security.ScramSHA256, 2: security.ScramSHA512}

func scramNumber(mechanism string) int8 {
	for number, name := range scramMechanisms {
		if name == mechanism {
			return number
		}
	}
	return 0
}

func handleDescribeUserScramCredentials(r *request) {
	req := r.body.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	resp.Results = []kmsg.DescribeUserSCRAMCredentialsResponseResult{}
	known := r.conn.server.catalog.Topics().Security()
	if len(req.Users) == 0 {
		all := known.Credentials()
		for len(all) > 0 {
			of := known.CredentialsOf(all[0].User)
			resp.Results = append(resp.Results, describeScram(all[0].User, of))
			all = all[len(of):]
		}
		r.answerSized(resp, 64+48*len(resp.Results))
		return
	}
	times := map[string]int{}
	for _, u := range req.Users {
		times[u.Name]++
	}
	for _, u := range req.Users {
		if times[u.Name] == 0 {
			continue // answered
		}
		of := known.CredentialsOf(u.Name)
		out := describeScram(u.Name, of)
		var failure *kerr.Error
		var why string
		switch {
		case times[u.Name] > 1:
			failure, why = kerr.DuplicateResource, "named twice"
		case len(of) == 0:
			failure, why = kerr.ResourceNotFound, "there is no such user"
		}
		if failure != nil {
			out.ErrorCode, out.ErrorMessage, out.CredentialInfos = r.note(failure.Code), &why, nil
		}
		delete(times, u.Name)
		resp.Results = append(resp.Results, out)
	}
	r.answer(resp)
}

func describeScram(user string, of []fsm.Credential) kmsg.DescribeUserSCRAMCredentialsResponseResult {
	out := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
	out.User = user
	for _, c := range of {
		info := kmsg.NewDescribeUserSCRAMCredentialsResponseResultCredentialInfo()
		info.Mechanism, info.Iterations = scramNumber(c.Mechanism), int32(c.Iterations)
		out.CredentialInfos = append(out.CredentialInfos, info)
	}
	return out
}
