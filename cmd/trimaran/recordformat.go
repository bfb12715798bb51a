package main

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
)

// formatter writes one record behind dst.
type formatter func(dst []byte, r *kgo.Record) []byte

// parseFormat understands the --format of consume: %v value, %k key, %o offset,
// %p partition, %t topic, %T timestamp in ms since 1970 (-1: the record has
// none), %% a percent sign, and the escapes \n \t \r \0 \\. escape makes keys and values fit for a
// terminal.
func parseFormat(format string, escape bool) (formatter, error) {
	bytes := func(dst, b []byte) []byte { return append(dst, b...) }
	if escape {
		bytes = terminal.AppendText
	}
	var parts []formatter
	literal := func(text string) {
		parts = append(parts, func(dst []byte, _ *kgo.Record) []byte { return append(dst, text...) })
	}
	verbs := map[byte]formatter{
		'v': func(dst []byte, r *kgo.Record) []byte { return bytes(dst, r.Value) },
		'k': func(dst []byte, r *kgo.Record) []byte { return bytes(dst, r.Key) },
		'o': func(dst []byte, r *kgo.Record) []byte { return strconv.AppendInt(dst, r.Offset, 10) },
		'p': func(dst []byte, r *kgo.Record) []byte { return strconv.AppendInt(dst, int64(r.Partition), 10) },
		't': func(dst []byte, r *kgo.Record) []byte { return append(dst, r.Topic...) },
		'T': func(dst []byte, r *kgo.Record) []byte { return strconv.AppendInt(dst, millis(r), 10) },
		'%': func(dst []byte, _ *kgo.Record) []byte { return append(dst, '%') },
	}
	escapes := map[byte]string{'n': "\n", 't': "\t", 'r': "\r", '0': "\x00", '\\': `\`}
	for format != "" {
		i := strings.IndexAny(format, `%\`)
		if i < 0 {
			literal(format)
			break
		}
		if i > 0 {
			literal(format[:i])
		}
		if i+1 == len(format) {
			return nil, usagef("--format: a lone %q at the end", format[i])
		}
		if sign := format[i+1]; format[i] == '%' {
			verb, ok := verbs[sign]
			if !ok {
				return nil, usagef("--format: unknown %%%c; there are %%v %%k %%o %%p %%t %%T %%%%", sign)
			}
			parts = append(parts, verb)
		} else {
			text, ok := escapes[sign]
			if !ok {
				return nil, usagef(`--format: unknown \%c; there are \n \t \r \0 \\`, sign)
			}
			literal(text)
		}
		format = format[i+2:]
	}
	return func(dst []byte, r *kgo.Record) []byte {
		for _, part := range parts {
			dst = part(dst, r)
		}
		return dst
	}, nil
}

// millis gives the record's timestamp, -1 where the format it came in has none.
func millis(r *kgo.Record) int64 {
	if r.Timestamp.IsZero() {
		return -1
	}
	return r.Timestamp.UnixMilli()
}

// jsonRecord is a line of `consume --json` and `produce --json`.
type jsonRecord struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Offset    int64   `json:"offset"`
	Timestamp int64   `json:"timestamp,omitempty"`
	Key       *string `json:"key,omitempty"`
	Value     *string `json:"value,omitempty"`
	// KeyBase64 and ValueBase64 stand in for what is no UTF-8 text.
	KeyBase64   string `json:"key_base64,omitempty"`
	ValueBase64 string `json:"value_base64,omitempty"`
}

func formatJSON(dst []byte, r *kgo.Record) []byte {
	j := jsonRecord{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: max(millis(r), 0)}
	j.Key, j.KeyBase64 = jsonBytes(r.Key)
	j.Value, j.ValueBase64 = jsonBytes(r.Value)
	line, err := json.Marshal(j)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return append(append(dst, line...), '\n')
}

func jsonBytes(b []byte) (text *string, encoded string) {
	if b == nil {
		return nil, ""
	}
	if !utf8.Valid(b) {
		return nil, base64.StdEncoding.EncodeToString(b)
	}
	s := string(b)
	return &s, ""
}
