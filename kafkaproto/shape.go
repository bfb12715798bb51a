package kafkaproto

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A shape is the structure of one version of a request: what kmsg will read, in
// order. The walker goes over a request by it before kmsg allocates anything.
//
// Shapes are not written down. kmsg knows which version has which field, in code
// and not in data, but it can be asked: a field belongs to a version if changing
// it changes what is encoded. So a new version is a number in Served.
type shape []field

type field struct {
	kind fieldKind
	size int   // of kindFixed, in bytes
	of   shape // of kindArray and kindNullable
}

type fieldKind uint8

const (
	kindFixed        fieldKind = iota // so many bytes
	kindString                        // int16 length, -1 for null
	kindBytes                         // int32 length, -1 for null
	kindArray                         // int32 count, -1 for null
	kindCompact                       // string or bytes: uvarint length + 1, 0 for null (KIP-482)
	kindCompactArray                  // uvarint count + 1, 0 for null
	kindNullable                      // int8, -1 for null, else a struct (KIP-893)
	kindTags                          // tagged fields
)

// probe is what a field is changed to that takes text.
const probe = "probe"

// shapes()[key][v] is the shape of version Min+v of every served API. To find them
// takes some milliseconds, once.
var shapes = sync.OnceValue(func() map[int16][]shape {
	all := make(map[int16][]shape, len(Served))
	for _, api := range Served {
		for v := api.Min; v <= api.Max; v++ {
			all[int16(api.Key)] = append(all[int16(api.Key)], shapeOf(int16(api.Key), v))
		}
	}
	return all
})

// shapeOf finds the shape of a request. It panics on what it cannot find out,
// which depends on the key and the version alone: the test of the table is enough.
func shapeOf(key, version int16) shape {
	req := kmsg.RequestForKey(key)
	if req == nil {
		panic(fmt.Sprintf("kafkaproto: no request has key %d", key))
	}
	req.SetVersion(version)
	root := reflect.ValueOf(req).Elem()
	populate(root)
	p := prober{req: req}
	s := p.structure(root)
	w := walker{rest: req.AppendTo(nil)}
	if w.walk(s); w.bad || len(w.rest) > 0 {
		panic(fmt.Sprintf("kafkaproto: the shape of key %d version %d is not understood", key, version))
	}
	return s
}

type defaulter interface{ Default() }

// populate gives every array of v one element and every nullable struct a value,
// so that the fields in them are there to be probed.
func populate(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		switch {
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() != reflect.Uint8:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			if f.Type().Elem().Kind() == reflect.Struct {
				f.Index(0).Addr().Interface().(defaulter).Default()
				populate(f.Index(0))
			}
		case f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct:
			f.Set(reflect.New(f.Type().Elem()))
			f.Interface().(defaulter).Default()
			populate(f.Elem())
		case f.Kind() == reflect.Struct && f.Type() != tagsType:
			populate(f)
		}
	}
}

var tagsType = reflect.TypeFor[kmsg.Tags]()

// prober finds shapes by changing the fields of req.
type prober struct{ req kmsg.Request }

// structure gives the shape of the struct v, which is req or in it.
func (p prober) structure(v reflect.Value) (s shape) {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch {
		case f.Type() == tagsType:
			var one kmsg.Tags
			one.Set(99, nil)
			// more in a struct that is a tagged field itself
			if p.grows(f, f, reflect.ValueOf(one)) == 2 {
				s = append(s, field{kind: kindTags})
			}
		case name == "Version" && v.Addr().Interface() == any(p.req):
			// not in the body: the header says it
		case f.Kind() == reflect.Struct:
			s = append(s, p.structure(f)...)
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() != reflect.Uint8:
			s = p.array(s, f)
		case f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct:
			if p.grows(f, reflect.Zero(f.Type()), f) > 0 {
				s = append(s, field{kind: kindNullable, of: p.structure(f.Elem())})
			}
		default:
			s = p.leaf(s, f, name)
		}
	}
	return s
}

// with encodes the request with another value in f, which is afterwards what it was.
func (p prober) with(f, value reflect.Value) []byte {
	before, value := copyOf(f), copyOf(value)
	defer f.Set(before)
	f.Set(value)
	return p.req.AppendTo(nil)
}

// copyOf gives a value that does not change with the field it was taken from.
func copyOf(v reflect.Value) reflect.Value { return reflect.ValueOf(v.Interface()) }

// grows gives by how many bytes the request grows when f changes from one value
// to another.
func (p prober) grows(f, from, to reflect.Value) int {
	return len(p.with(f, to)) - len(p.with(f, from))
}

// present reports whether another value of f is encoded in another way.
func (p prober) present(f, other reflect.Value) bool {
	return string(p.with(f, other)) != string(p.req.AppendTo(nil))
}

func (p prober) array(s shape, f reflect.Value) shape {
	two := reflect.MakeSlice(f.Type(), 2, 2)
	two.Index(0).Set(f.Index(0))
	two.Index(1).Set(f.Index(0))
	one := f.Slice(0, 1)
	first, second := p.grows(f, reflect.MakeSlice(f.Type(), 0, 0), one), p.grows(f, one, two)
	switch {
	case first == 0:
		return s
	case first != second:
		panic(fmt.Sprintf("kafkaproto: key %d version %d has an array in a tagged field", p.req.Key(), p.req.GetVersion()))
	}
	var of shape
	if elem := f.Index(0); elem.Kind() == reflect.Struct {
		of = p.structure(elem)
	} else {
		of = p.leaf(nil, elem, "")
	}
	kind := kindArray
	if p.req.IsFlexible() {
		kind = kindCompactArray
	}
	return append(s, field{kind: kind, of: of})
}

// leaf appends the field f unless it is not in this version. A tagged field is
// not in the encoding while it has its default, so that it grows by more than the
// change itself: the walker meets it as a tag.
func (p prober) leaf(s shape, f reflect.Value, name string) shape {
	flexible := p.req.IsFlexible()
	pick := func(plain fieldKind) field {
		if flexible {
			plain = kindCompact
		}
		return field{kind: plain}
	}
	switch f.Kind() {
	case reflect.String:
		if p.grows(f, reflect.ValueOf(""), reflect.ValueOf(probe)) == len(probe) {
			s = append(s, pick(kindString))
		}
	case reflect.Pointer: // to a string
		if f.Type().Elem().Kind() != reflect.String {
			panic(fmt.Sprintf("kafkaproto: field %s of key %d is a %s", name, p.req.Key(), f.Type()))
		}
		if p.grows(f, reflect.Zero(f.Type()), reflect.ValueOf(kmsg.StringPtr(probe))) == len(probe) {
			s = append(s, pick(kindString))
		}
	case reflect.Slice:
		if p.grows(f, reflect.ValueOf([]byte{}), reflect.ValueOf([]byte(probe))) == len(probe) {
			s = append(s, pick(kindBytes))
		}
	default:
		// Something that is neither the default nor zero.
		other := reflect.New(f.Type()).Elem()
		size := 0
		switch f.Kind() {
		case reflect.Bool:
			other.SetBool(!f.Bool())
			size = 1
		case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
			other.SetInt(0x55 ^ f.Int()&0x7f)
			size = int(f.Type().Size())
		case reflect.Uint16, reflect.Uint32:
			other.SetUint(0x55 ^ f.Uint()&0x7f)
			size = int(f.Type().Size())
		case reflect.Float64:
			other.SetFloat(f.Float() + 1)
			size = 8
		case reflect.Array: // a UUID
			other.Index(0).SetUint(0x55 ^ f.Index(0).Uint())
			size = f.Len()
		default:
			panic(fmt.Sprintf("kafkaproto: field %s of key %d is a %s", name, p.req.Key(), f.Type()))
		}
		if p.present(f, other) && p.grows(f, f, other) == 0 {
			s = append(s, field{kind: kindFixed, size: size})
		}
	}
	return s
}
