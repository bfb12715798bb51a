package gateway

import "github.com/twmb/franz-go/pkg/kmsg"

// DescribeClientQuotas, versions 0 and 1 (KIP-546).
//
// Differs: the answer is empty. Nothing is ever throttled. AlterClientQuotas is not
// served, so that nobody believes to have set one.

func handleDescribeClientQuotas(r *request) {
	resp := r.body.(*kmsg.DescribeClientQuotasRequest).ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	// Null entries stand for an error, an empty list for none (KIP-546).
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{}
	r.answer(resp)
}
