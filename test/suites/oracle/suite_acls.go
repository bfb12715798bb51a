package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// entry is one of CreateAcls: READ of a literal topic for User:a, but as the edits say.
func entry(topic string, edits ...func(*kmsg.CreateACLsRequestCreation)) kmsg.CreateACLsRequestCreation {
	c := kmsg.NewCreateACLsRequestCreation()
	c.ResourceType, c.ResourceName, c.ResourcePatternType = kmsg.ACLResourceTypeTopic, topic, kmsg.ACLResourcePatternTypeLiteral
	c.Principal, c.Host, c.Operation, c.PermissionType = "User:a", "*", kmsg.ACLOperationRead, kmsg.ACLPermissionTypeAllow
	for _, e := range edits {
		e(&c)
	}
	return c
}

// createACLs writes down the error of each entry.
func (t *T) createACLs(entries ...kmsg.CreateACLsRequestCreation) {
	req := kmsg.NewPtrCreateACLsRequest()
	req.Version, req.Creations = 3, entries
	resp, err := t.send(req)
	for i, c := range entries {
		said := fmt.Sprint(err)
		if err == nil {
			said = errorName(resp.(*kmsg.CreateACLsResponse).Results[i].ErrorCode)
		}
		t.Say("create %.100s: %s", t.replaced(aclLine(c.ResourceType, c.ResourceName, c.ResourcePatternType, c.Principal, c.Host, c.Operation, c.PermissionType)), said)
	}
}

// replaced has all aliases in a text, of those that contain another one the longer.
func (t *T) replaced(text string) string {
	from := slices.Collect(maps.Keys(t.aliases))
	slices.SortFunc(from, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	for _, f := range from {
		text = strings.ReplaceAll(text, f, t.aliases[f])
	}
	return text
}

// findACLs writes down what a filter selects. What others have in their cases is left out.
func (t *T) findACLs(what string, edit func(*kmsg.DescribeACLsRequest)) {
	t.Say("%s:", what)
	for _, l := range t.acls(filterAny(edit)) {
		if !strings.Contains(l, "-") || t.replaced(l) != l {
			t.Say("  %s", t.replaced(l))
		}
	}
}

// settle waits until the broker has an ACL, or has it no more.
func (t *T) settle(there bool, topic string) {
	t.until("the ACLs of "+topic, func() bool { return (len(t.acls(filterAny(forName(topic)))) > 0) == there })
}

// name is a topic's name of this case, which need not be there.
func (t *T) aliasedName() string {
	name := t.Name()
	t.Alias(name, "name")
	return name
}

// deleteACLs writes down what the filters of one request select and delete.
func (t *T) deleteACLs(filters ...*kmsg.DescribeACLsRequest) {
	req := kmsg.NewPtrDeleteACLsRequest()
	req.Version = 3
	for _, f := range filters {
		d := kmsg.NewDeleteACLsRequestFilter()
		d.ResourceType, d.ResourceName, d.ResourcePatternType = f.ResourceType, f.ResourceName, f.ResourcePatternType
		d.Principal, d.Host, d.Operation, d.PermissionType = f.Principal, f.Host, f.Operation, f.PermissionType
		req.Filters = append(req.Filters, d)
	}
	resp, err := t.send(req)
	if err != nil {
		t.Say("delete: %v", err)
		return
	}
	for _, r := range resp.(*kmsg.DeleteACLsResponse).Results {
		t.Say("delete: %s", errorName(r.ErrorCode))
		var lines []string
		for _, a := range r.MatchingACLs {
			lines = append(lines, t.replaced(aclLine(a.ResourceType, a.ResourceName, a.ResourcePatternType, a.Principal, a.Host, a.Operation, a.PermissionType)))
		}
		t.sorted(lines)
	}
}

// forName edits a filter to one name, whatever the pattern.
func forName(name string) func(*kmsg.DescribeACLsRequest) {
	return func(f *kmsg.DescribeACLsRequest) { f.ResourceName = &name }
}

type creation = kmsg.CreateACLsRequestCreation

var aclCases = []Case{
	{"versions", func(t *T) {
		for _, key := range []int16{29, 30, 31} {
			t.Hello(key)
		}
	}},
	{"create and describe", func(t *T) {
		name := t.aliasedName()
		t.createACLs(entry(name),
			entry(name), // again
			entry(name, func(c *creation) { c.ResourcePatternType = kmsg.ACLResourcePatternTypePrefixed }),
			entry(name, func(c *creation) {
				c.Operation, c.PermissionType, c.Host = kmsg.ACLOperationAll, kmsg.ACLPermissionTypeDeny, "10.0.0.1"
			}),
			entry(name, func(c *creation) { c.ResourceType = kmsg.ACLResourceTypeGroup }))
		t.settle(true, name)
		t.createACLs(entry(name))
		t.findACLs("all of the name", forName(name))
		t.findACLs("literal", func(f *kmsg.DescribeACLsRequest) {
			f.ResourceName, f.ResourcePatternType = &name, kmsg.ACLResourcePatternTypeLiteral
		})
		t.findACLs("what matches the name and more", func(f *kmsg.DescribeACLsRequest) {
			f.ResourceName, f.ResourcePatternType = kmsg.StringPtr(name+"more"), kmsg.ACLResourcePatternTypeMatch
		})
		t.findACLs("prefixed of another name", func(f *kmsg.DescribeACLsRequest) {
			f.ResourceName, f.ResourcePatternType = kmsg.StringPtr(name+"more"), kmsg.ACLResourcePatternTypePrefixed
		})
		t.findACLs("by operation", func(f *kmsg.DescribeACLsRequest) { f.ResourceName, f.Operation = &name, kmsg.ACLOperationAll })
		t.findACLs("by permission", func(f *kmsg.DescribeACLsRequest) {
			f.ResourceName, f.PermissionType = &name, kmsg.ACLPermissionTypeDeny
		})
		t.findACLs("by host", func(f *kmsg.DescribeACLsRequest) { f.ResourceName, f.Host = &name, kmsg.StringPtr("*") })
		t.findACLs("by a principal that has none", func(f *kmsg.DescribeACLsRequest) { f.ResourceName, f.Principal = &name, kmsg.StringPtr("User:b") })
		t.findACLs("by another kind", func(f *kmsg.DescribeACLsRequest) {
			f.ResourceName, f.ResourceType = &name, kmsg.ACLResourceTypeTransactionalId
		})
	}},
	{"entries that cannot be", func(t *T) {
		name := t.aliasedName()
		for _, edit := range []func(*creation){
			func(c *creation) { c.ResourceName = "" },
			func(c *creation) { c.ResourceType = kmsg.ACLResourceTypeAny },
			func(c *creation) { c.ResourceType = kmsg.ACLResourceTypeUnknown },
			func(c *creation) { c.ResourceType = 99 },
			func(c *creation) { c.ResourcePatternType = kmsg.ACLResourcePatternTypeAny },
			func(c *creation) { c.ResourcePatternType = kmsg.ACLResourcePatternTypeMatch },
			func(c *creation) { c.ResourcePatternType = kmsg.ACLResourcePatternTypeUnknown },
			func(c *creation) { c.Operation = kmsg.ACLOperationAny },
			func(c *creation) { c.Operation = kmsg.ACLOperationUnknown },
			func(c *creation) { c.Operation = 99 },
			func(c *creation) { c.PermissionType = kmsg.ACLPermissionTypeAny },
			func(c *creation) { c.PermissionType = kmsg.ACLPermissionTypeUnknown },
			func(c *creation) { c.Operation = kmsg.ACLOperationIdempotentWrite },
			func(c *creation) { c.Operation = kmsg.ACLOperationClusterAction },
			func(c *creation) { c.ResourceType, c.Operation = kmsg.ACLResourceTypeGroup, kmsg.ACLOperationWrite },
			func(c *creation) { c.ResourceType, c.ResourceName = kmsg.ACLResourceTypeCluster, "other" },
			func(c *creation) {
				c.ResourceType, c.ResourceName, c.Operation = kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLOperationRead
			},
			func(c *creation) { c.ResourceType = kmsg.ACLResourceTypeDelegationToken },
			func(c *creation) { c.ResourceType, c.Operation = 7, kmsg.ACLOperationDescribeTokens },
			func(c *creation) { c.Principal = "" },
			func(c *creation) { c.Principal = "a" },
			func(c *creation) { c.Principal = "User:" },
			func(c *creation) { c.Principal = ":a" },
			func(c *creation) { c.Principal = "Group:a" },
			func(c *creation) { c.Principal = "user:a" },
			func(c *creation) { c.Principal = "User:a:b" },
			func(c *creation) { c.Principal = "User: a" },
			func(c *creation) { c.Host = "" },
			func(c *creation) { c.Host = "kafka.example" },
			func(c *creation) { c.Host = "10.0.0.0/8" },
			func(c *creation) { c.Host = "::1" },
			func(c *creation) { c.ResourceName = "a b" },
			func(c *creation) { c.ResourceName, c.ResourcePatternType = "*", kmsg.ACLResourcePatternTypePrefixed },
			func(c *creation) { c.ResourceName = strings.Repeat("x", 249) },
			func(c *creation) { c.ResourceName = strings.Repeat("x", 250) },
		} {
			t.createACLs(entry(name, edit))
		}
	}},
	{"good and bad entries in a request", func(t *T) {
		name := t.aliasedName()
		t.createACLs(entry(name), entry(""), entry(name, func(c *creation) { c.Operation = kmsg.ACLOperationWrite }))
		t.settle(true, name)
		t.findACLs("there is", forName(name))
		t.createACLs()
	}},
	{"filters that cannot be", func(t *T) {
		none := kmsg.StringPtr("nobody-has-it")
		for i, edit := range []func(*kmsg.DescribeACLsRequest){
			func(f *kmsg.DescribeACLsRequest) { f.ResourceType = kmsg.ACLResourceTypeUnknown },
			func(f *kmsg.DescribeACLsRequest) { f.ResourceType = 99 },
			func(f *kmsg.DescribeACLsRequest) { f.ResourcePatternType = kmsg.ACLResourcePatternTypeUnknown },
			func(f *kmsg.DescribeACLsRequest) { f.Operation = kmsg.ACLOperationUnknown },
			func(f *kmsg.DescribeACLsRequest) { f.PermissionType = kmsg.ACLPermissionTypeUnknown },
			func(f *kmsg.DescribeACLsRequest) { f.Principal = none },
			func(f *kmsg.DescribeACLsRequest) { f.ResourceName = kmsg.StringPtr("") },
			func(f *kmsg.DescribeACLsRequest) { f.ResourceName, f.Host = none, kmsg.StringPtr("kafka.example") },
			func(f *kmsg.DescribeACLsRequest) { f.ResourceName, f.Host = none, kmsg.StringPtr("") },
		} {
			t.findACLs(fmt.Sprint("describe ", i+1), edit)
			f := filterAny(edit)
			if f.ResourceName == nil {
				f.ResourceName = none
			}
			t.deleteACLs(f)
		}
	}},
	{"delete", func(t *T) {
		name := t.aliasedName()
		t.createACLs(entry(name), entry(name, func(c *creation) { c.Operation = kmsg.ACLOperationWrite }),
			entry(name, func(c *creation) { c.ResourcePatternType = kmsg.ACLResourcePatternTypePrefixed }))
		t.settle(true, name)
		read := filterAny(func(f *kmsg.DescribeACLsRequest) { f.ResourceName, f.Operation = &name, kmsg.ACLOperationRead })
		t.deleteACLs(read, filterAny(forName(name))) // some by both
		t.settle(false, name)
		t.deleteACLs(read)
		t.deleteACLs()
	}},
}
