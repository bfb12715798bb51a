package gateway

import "github.com/trimaran-io/trimaran/security/acl"

// Authorized operations (KIP-430): a bit for each operation that the client may do, of those that
// the kind of resource has (AclEntry.supportedOperations).
var (
	topicOperations   = []acl.Operation{acl.Read, acl.Write, acl.Create, acl.Describe, acl.Delete, acl.Alter, acl.DescribeConfigs, acl.AlterConfigs}
	groupOperations   = []acl.Operation{acl.Read, acl.Describe, acl.Delete, acl.DescribeConfigs, acl.AlterConfigs}
	clusterOperations = []acl.Operation{acl.Create, acl.ClusterAction, acl.DescribeConfigs, acl.AlterConfigs, acl.IdempotentWrite, acl.Alter, acl.Describe}
)

// operationsOn gives the bits for a resource.
func (r *request) operationsOn(kind acl.ResourceType, name string, all []acl.Operation) (bits int32) {
	for _, op := range all {
		if r.sees(op, kind, name) {
			bits |= 1 << op
		}
	}
	return bits
}

// operationsOnCluster gives the bits for the cluster, none to who may not describe it.
func (r *request) operationsOnCluster() int32 {
	if !r.sees(acl.Describe, acl.Cluster, acl.ClusterName) {
		return 0
	}
	return r.operationsOn(acl.Cluster, acl.ClusterName, clusterOperations)
}
