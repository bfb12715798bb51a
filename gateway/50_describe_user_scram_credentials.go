package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeUserScramCredentials, version 0 (KIP-554).
//
// Kept: of all users, nobody; of a user by name, RESOURCE_NOT_FOUND; of one who is
// named twice, DUPLICATE_RESOURCE.

func handleDescribeUserScramCredentials(r *request) {
	req := r.body.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	resp.Results = []kmsg.DescribeUserSCRAMCredentialsResponseResult{}
	times := map[string]int{}
	for _, u := range req.Users {
		times[u.Name]++
	}
	for _, u := range req.Users {
		if times[u.Name] == 0 {
			continue // answered
		}
		failure, why := kerr.ResourceNotFound, "there are no users"
		if times[u.Name] > 1 {
			failure, why = kerr.DuplicateResource, "named twice"
		}
		delete(times, u.Name)
		out := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		out.User, out.ErrorCode, out.ErrorMessage = u.Name, r.note(failure.Code), &why
		resp.Results = append(resp.Results, out)
	}
	r.answer(resp)
}
