package catalog

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security/acl"
)

// AlterACLs adds ACLs, or removes those that filters select and gives them, filter by filter. It
// returns when the change is known at all connected nodes. An ACL that two filters select is in the
// answers to both. When the fate of a removal was not known and it was asked for again, what is
// gone already is missing in the answer. Errors are outcome.ErrInvalidConfig, outcome.ErrPolicy
// when there would be too many, outcome.ErrFeatureLevel, and those of atLeader.
func (c *Catalog) AlterACLs(ctx context.Context, add []acl.Binding, remove []acl.Filter) (removed [][]acl.Binding, err error) {
	if err := c.awaitFeatureLevel(ctx, fsm.CatalogCommand{AlterACLs: &fsm.AlterACLs{}}); err != nil {
		return nil, err // nodes of that level do not know the call
	}
	reply, err := askAndTell(ctx, c, c.alterACLs(), calls.AlterACLsRequest{Add: add, Remove: remove})
	if err != nil {
		return nil, err
	}
	if len(reply.RemovedACLs) != len(remove) {
		reply.RemovedACLs = make([][]acl.Binding, len(remove)) // of a leader that says nothing
	}
	return reply.RemovedACLs, nil
}

func (c *Catalog) alterACLs() question[calls.AlterACLsRequest] {
	return question[calls.AlterACLsRequest]{calls.AlterACLs, func(ctx context.Context, from string, q calls.AlterACLsRequest) (calls.CatalogReply, error) {
		var removed [][]acl.Binding
		at, err := placed(c, func(view *fsm.Topics, q calls.AlterACLsRequest) (fsm.CatalogCommand, error) {
			command, found, err := resolveACLs(view.Security().ACLs(), q)
			removed = found
			return command, err
		})(ctx, from, q)
		at.RemovedACLs = removed
		return at, err
	}}
}

// resolveACLs gives the command for what is asked, and what each filter selects.
func resolveACLs(set *acl.Set, q calls.AlterACLsRequest) (fsm.CatalogCommand, [][]acl.Binding, error) {
	alter := &fsm.AlterACLs{}
	for _, b := range q.Add {
		if !set.Has(b) {
			alter.Add = append(alter.Add, b)
		}
	}
	removed := make([][]acl.Binding, len(q.Remove))
	for i, f := range q.Remove {
		if err := f.Check(); err != nil {
			return fsm.CatalogCommand{}, nil, outcome.With(outcome.ErrInvalidConfig, err)
		}
		removed[i] = set.Select(f)
		alter.Remove = append(alter.Remove, removed[i]...)
	}
	if len(alter.Add)+len(alter.Remove) == 0 {
		return fsm.CatalogCommand{}, removed, errDone
	}
	return fsm.CatalogCommand{AlterACLs: alter}, removed, nil
}

// secretBytes is the size of what salts of users that do not exist are made from.
const secretBytes = 32

// AlterCredentials gives users passwords and takes them away, and returns when that is known at all
// connected nodes. Errors are as those of AlterACLs.
func (c *Catalog) AlterCredentials(ctx context.Context, alter fsm.AlterCredentials) error {
	for _, set := range alter.Set {
		if err := set.Check(); err != nil {
			return err // what it holds is not for other nodes to read
		}
	}
	if err := c.awaitFeatureLevel(ctx, fsm.CatalogCommand{AlterCredentials: &alter}); err != nil {
		return err
	}
	if !c.View().Security().HadUsers() {
		alter.Secret = make([]byte, secretBytes)
		if _, err := rand.Read(alter.Secret); err != nil {
			return errors.Join(outcome.ErrUnknown, err)
		}
	}
	return c.ChangeForAll(ctx, fsm.CatalogCommand{AlterCredentials: &alter})
}

// AlterTokens changes keys of tokens and what is revoked, as AlterCredentials.
func (c *Catalog) AlterTokens(ctx context.Context, alter fsm.AlterTokens) error {
	command := fsm.CatalogCommand{AlterTokens: &alter}
	if err := c.awaitFeatureLevel(ctx, command); err != nil {
		return err
	}
	return c.ChangeForAll(ctx, command)
}
