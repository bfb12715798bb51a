package security

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// How a certificate names its principal.
const (
	ByDN     = "dn"      // its subject, as Kafka does
	ByCN     = "cn"      // the subject's one common name
	BySANURI = "san-uri" // its one URI, such as SPIFFE's
)

// errName: a certificate has no name, or more than one, of the kind that is asked for.
var errName = errors.New("the certificate does not have exactly one name of the kind that is wanted")

// OfCertificate is the principal of a certificate that was verified.
func OfCertificate(c *x509.Certificate, how string) (Principal, error) {
	var name string
	switch how {
	case ByDN:
		var err error
		if name, err = Subject(c.RawSubject); err != nil {
			return Principal{}, err
		}
	case ByCN:
		commonName := asn1.ObjectIdentifier{2, 5, 4, 3}
		count := 0
		for _, a := range c.Subject.Names {
			if a.Type.Equal(commonName) {
				count++
			}
		}
		if name = c.Subject.CommonName; count != 1 {
			return Principal{}, errName
		}
	case BySANURI:
		if len(c.URIs) != 1 {
			return Principal{}, errName
		}
		name = c.URIs[0].String()
	}
	if name == "" || len(name) > maxSubject || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return Principal{}, errName
	}
	return User(name), nil
}

// maxSubject bounds the name of a principal that comes from a certificate, in bytes.
const maxSubject = 1 << 10

// keywords are the attributes that RFC 2253 has names for; all others are written by number.
var keywords = map[string]string{
	"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
	"2.5.4.9": "STREET", "0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// Subject writes a certificate's subject, given as DER, as Java does by
// X500Principal.getName(RFC2253), since ACLs that come from Kafka name principals so.
func Subject(der []byte) (string, error) {
	var sets []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &sets); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("the certificate's subject: %w", errors.Join(err, errName))
	}
	var parts []string
	for _, set := range slices.Backward(sets) {
		var pairs []string
		for rest := set.Bytes; len(rest) > 0; {
			var a attribute
			var err error
			if rest, err = asn1.Unmarshal(rest, &a); err != nil {
				return "", fmt.Errorf("the certificate's subject: %w", err)
			}
			pairs = append(pairs, a.String())
		}
		parts = append(parts, strings.Join(pairs, "+"))
	}
	return strings.Join(parts, ","), nil
}

// String writes one attribute.
func (a attribute) String() string {
	keyword, known := keywords[a.Type.String()]
	text, isText := textOf(a.Value)
	if !known || !isText {
		if !known {
			keyword = a.Type.String()
		}
		return keyword + "=#" + hex.EncodeToString(a.Value.FullBytes)
	}
	var b strings.Builder
	b.WriteString(keyword + "=")
	first := len(text) - len(strings.TrimLeft(text, " \r"))
	last := len(strings.TrimRight(text, " \r"))
	for i, c := range text {
		switch {
		case c == 0:
			b.WriteString(`\00`)
			continue
		case strings.ContainsRune(`,=+<>#;"\`, c), (c == ' ' || c == '\r') && (i < first || i >= last):
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// textOf gives the text of a value of one of the kinds that Java takes for text.
func textOf(v asn1.RawValue) (string, bool) {
	if v.Class != asn1.ClassUniversal {
		return "", false
	}
	switch v.Tag {
	case asn1.TagPrintableString, asn1.TagUTF8String, asn1.TagT61String, asn1.TagIA5String,
		asn1.TagGeneralString, asn1.TagBMPString: // even the last one is read as UTF-8 there
		return string(v.Bytes), utf8.Valid(v.Bytes)
	}
	return "", false
}
