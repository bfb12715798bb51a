package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/outcome"
)

// AlterConfigs, versions 0 to 2.
//
// Kept: what is set for a topic is replaced by what the request says, so what it
// does not name is at its default again. validate_only. Resources fail one by one;
// one that stands twice in a request is INVALID_REQUEST in all of its places.
//
// Of the broker, by its id or, for the default of all brokers, by an empty name, what has
// no effect here can be altered and is kept and shown (fsm.BrokerConfigs). To give anything
// the value that it has, or to take back what is not set, changes nothing.
//
// Differs: nodes are configured where they run, so anything else of the broker is
// INVALID_REQUEST, as what cannot be changed at run time is in Kafka, and the message says so.

func handleAlterConfigs(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.AlterConfigsRequest)
		resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
		alterations := make([]alteration, len(req.Resources))
		for i := range req.Resources {
			in := &req.Resources[i]
			a := &alterations[i]
			a.typ, a.name, a.replace = in.ResourceType, in.ResourceName, true
			for _, c := range in.Configs {
				a.change(c.Name, fsm.SetConfig, c.Value)
			}
		}
		errs := r.alterConfigs(alterations, req.ValidateOnly)
		for i := range req.Resources {
			out := kmsg.NewAlterConfigsResponseResource()
			out.ResourceType, out.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
			if errs[i] != nil {
				out.ErrorCode, out.ErrorMessage = r.fail(errs[i]), kmsg.StringPtr(message(errs[i]))
			}
			resp.Resources = append(resp.Resources, out)
		}
		r.answer(resp)
	})
}

// alteration is what one resource of a request is to become.
type alteration struct {
	typ     kmsg.ConfigResourceType
	name    string
	replace bool
	changes []fsm.ConfigChange
	named   map[string]bool // the configurations that changes are for
	err     error           // what is wrong with it at first sight
}

// change adds a change; a nil value is for deletions only.
func (a *alteration) change(name string, op fsm.ConfigOp, value *string) {
	if a.named[name] && a.err == nil {
		a.err = fmt.Errorf("%w: %s is named more than once", errInvalidRequest, listen.Shown(name))
	}
	if a.named == nil {
		a.named = map[string]bool{}
	}
	a.named[name] = true
	c := fsm.ConfigChange{Name: name, Op: op}
	switch {
	case op == fsm.DeleteConfig:
	case value == nil:
		a.err = fmt.Errorf("%w: %s has no value", errInvalidRequest, listen.Shown(name))
	case len(*value) > fsm.MaxConfigValue && a.err == nil:
		// Also of elements to append or take out: each is looked for in the list.
		a.err = fmt.Errorf("%w: %s has a value of %d bytes, want at most %d", outcome.ErrInvalidConfig, listen.Shown(name), len(*value), fsm.MaxConfigValue)
	default:
		c.Value = *value
	}
	a.changes = append(a.changes, c)
}

// alterTimeoutMillis is how long altering may take: these requests bring no timeout.
const alterTimeoutMillis = 30_000

// alterConfigs alters what can be altered; an error for each.
func (r *request) alterConfigs(alterations []alteration, validateOnly bool) []error {
	s := r.conn.server
	named := map[resource]int{}
	for _, a := range alterations {
		named[resource{a.typ, a.name}]++
	}
	return r.admin(alterTimeoutMillis, len(alterations), func(ctx context.Context, i int) error {
		a := &alterations[i]
		switch {
		case named[resource{a.typ, a.name}] > 1:
			return fmt.Errorf("%w: the resource is named more than once", errInvalidRequest)
		}
		if err := r.mayConfigure(a.typ, a.name); err != nil {
			return err
		}
		switch {
		case a.err != nil:
			return a.err
		case a.typ == kmsg.ConfigResourceTypeBroker:
			return r.alterBroker(ctx, a, validateOnly)
		case a.typ != kmsg.ConfigResourceTypeTopic:
			return fmt.Errorf("%w: only topics can be altered, not resources of type %d", errInvalidRequest, a.typ)
		}
		topic, ok := s.catalog.Topics().Lookup(a.name)
		if !ok {
			return s.unknownTopic()
		}
		// Kafka takes back what nobody knows without a word: it is not set.
		changes := slices.DeleteFunc(a.changes, func(c fsm.ConfigChange) bool {
			_, known := fsm.LookupConfig(c.Name)
			return c.Op == fsm.DeleteConfig && !known
		})
		return s.changes.AlterConfigs(ctx, fsm.AlterConfigs{Topic: topic.ID, Replace: a.replace, Changes: changes}, validateOnly)
	})
}

// alterBroker alters the one broker, or the default of all brokers.
func (r *request) alterBroker(ctx context.Context, a *alteration, validateOnly bool) error {
	s := r.conn.server
	all, broker := a.name == "", shownBroker{id: BrokerID}
	if !all {
		var err error
		if broker, err = r.brokerNamed(a.name); err != nil {
			return err
		}
	}
	now := map[string]string{} // what the nodes' own configurations say
	for _, c := range s.brokerConfigs(broker.id) {
		if !c.alterable {
			now[c.name] = c.value
		}
	}
	alter := fsm.AlterBrokerConfigs{All: all, Replace: a.replace}
	for _, c := range a.changes {
		value, fixed := now[c.Name]
		switch _, err := fsm.LookupBrokerConfig(c.Name); {
		case err == nil:
			alter.Changes = append(alter.Changes, c)
		case c.Op == fsm.DeleteConfig, fixed && c.Op == fsm.SetConfig && strings.TrimSpace(c.Value) == value:
			// That is how it is.
		default:
			return fmt.Errorf("%w: %s of the broker cannot be altered: nodes are configured where they run", errInvalidRequest, listen.Shown(c.Name))
		}
	}
	if len(alter.Changes) == 0 && !alter.Replace {
		return nil
	}
	return s.changes.AlterBrokerConfigs(ctx, alter, validateOnly)
}
