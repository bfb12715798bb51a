package acl

import "strings"

// ResourceType is what a right is over, with the numbers of Kafka's protocol.
type ResourceType int8

// The types. DelegationToken and User can be stored and mean nothing here.
const (
	AnyType         ResourceType = 1 // of filters only
	Topic           ResourceType = 2
	Group           ResourceType = 3
	Cluster         ResourceType = 4
	TransactionalID ResourceType = 5
	DelegationToken ResourceType = 6
	User            ResourceType = 7
)

// PatternType is how the name of a binding is meant (KIP-290).
type PatternType int8

// The pattern types.
const (
	AnyPattern PatternType = 1 // of filters only: any of the others, with the name as it is
	// Match is of filters only: what would be obeyed for a resource of that name.
	Match    PatternType = 2
	Literal  PatternType = 3 // that name; "*" is any
	Prefixed PatternType = 4 // every name that begins so
)

// Operation is what somebody may do or not.
type Operation int8

// The operations.
const (
	AnyOperation    Operation = 1 // of filters only
	All             Operation = 2
	Read            Operation = 3
	Write           Operation = 4
	Create          Operation = 5
	Delete          Operation = 6
	Alter           Operation = 7
	Describe        Operation = 8
	ClusterAction   Operation = 9
	DescribeConfigs Operation = 10
	AlterConfigs    Operation = 11
	IdempotentWrite Operation = 12
	CreateTokens    Operation = 13
	DescribeTokens  Operation = 14
	TwoPhaseCommit  Operation = 15
)

// Permission says whether a binding allows or denies.
type Permission int8

// The permissions.
const (
	AnyPermission Permission = 1 // of filters only
	Deny          Permission = 2
	Allow         Permission = 3
)

const (
	// ClusterName is the only name that a resource of type Cluster has.
	ClusterName = "kafka-cluster"
	// Wildcard is the name, as a literal, and the host that stand for all.
	Wildcard = "*"
	// Everybody is the principal that stands for all.
	Everybody = "User:*"
)

// The words are those of Kafka's tools, in lower case. Places that no number has are "".
var (
	typeWords       = []string{"", "any", "topic", "group", "cluster", "transactional-id", "delegation-token", "user"}
	patternWords    = []string{"", "any", "match", "literal", "prefixed"}
	operationWords  = []string{"", "any", "all", "read", "write", "create", "delete", "alter", "describe", "cluster-action", "describe-configs", "alter-configs", "idempotent-write", "create-tokens", "describe-tokens", "two-phase-commit"}
	permissionWords = []string{"", "any", "deny", "allow"}
)

func (t ResourceType) String() string { return word(typeWords, int8(t)) }
func (p PatternType) String() string  { return word(patternWords, int8(p)) }
func (o Operation) String() string    { return word(operationWords, int8(o)) }
func (p Permission) String() string   { return word(permissionWords, int8(p)) }

func word(words []string, n int8) string {
	if n > 0 && int(n) < len(words) {
		return words[n]
	}
	return "unknown"
}

// ParseType reads a word of a resource type; case does not matter, and '_' is as good as '-'.
func ParseType(s string) (ResourceType, bool) { return number[ResourceType](typeWords, s) }

// ParsePattern is ParseType for pattern types.
func ParsePattern(s string) (PatternType, bool) { return number[PatternType](patternWords, s) }

// ParseOperation is ParseType for operations.
func ParseOperation(s string) (Operation, bool) { return number[Operation](operationWords, s) }

// Operations gives the words of all operations that a binding may have.
func Operations() []string { return operationWords[All:] }

func number[T ~int8](words []string, s string) (T, bool) {
	s = strings.ReplaceAll(strings.ToLower(s), "_", "-")
	for n, w := range words {
		if w != "" && w == s {
			return T(n), true
		}
	}
	return 0, false
}
