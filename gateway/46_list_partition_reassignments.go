package gateway

import "github.com/twmb/franz-go/pkg/kmsg"

// ListPartitionReassignments, version 0 (KIP-455).
//
// Differs: the answer is empty. Where replicas are is below what clients see: each
// partition has one broker and stays there.

func handleListPartitionReassignments(r *request) {
	r.answer(r.body.(*kmsg.ListPartitionReassignmentsRequest).ResponseKind())
}
