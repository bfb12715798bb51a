package security

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"testing"
)

func subject(t testing.TB, sets ...[]pkix.AttributeTypeAndValue) []byte {
	t.Helper()
	var rdns pkix.RDNSequence
	for _, s := range sets {
		rdns = append(rdns, s)
	}
	der, err := asn1.Marshal(rdns)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func is(oid asn1.ObjectIdentifier, value any) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: oid, Value: value}
}

var (
	oidC, oidO, oidCN = asn1.ObjectIdentifier{2, 5, 4, 6}, asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{2, 5, 4, 3}
	oidMail           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// What Java prints for the same subjects: new X500Principal(der).getName("RFC2253").
func TestSubject(t *testing.T) {
	one := func(values ...pkix.AttributeTypeAndValue) []pkix.AttributeTypeAndValue { return values }
	for want, der := range map[string][]byte{
		"CN=alice,O=Example,C=DE": subject(t, one(is(oidC, "DE")), one(is(oidO, "Example")), one(is(oidCN, "alice"))),
		"CN=a+O=b":                subject(t, one(is(oidCN, "a"), is(oidO, "b"))),
		`CN=a\,b\=c\+d\;e\#f`:     subject(t, one(is(oidCN, "a,b=c+d;e#f"))),
		`CN=\"q\"\\\<\>`:          subject(t, one(is(oidCN, `"q"\<>`))),
		`CN=\ \ a b\ `:            subject(t, one(is(oidCN, "  a b "))),
		"CN=müller":               subject(t, one(is(oidCN, "müller"))),
		`CN=a\00b`:                subject(t, one(is(oidCN, "a\x00b"))),
		"1.2.840.113549.1.9.1=#1605614062632e,CN=a": subject(t, one(is(oidCN, "a")), one(is(oidMail, asn1.RawValue{
			FullBytes: []byte{0x16, 5, 'a', '@', 'b', 'c', '.'}}))),
		`CN=\00a\00b`: subject(t, one(is(oidCN, asn1.RawValue{FullBytes: []byte{0x1e, 4, 0, 'a', 0, 'b'}}))),
		"":            subject(t),
	} {
		if got, err := Subject(der); err != nil || got != want {
			t.Errorf("%q, want %q: %v", got, want, err)
		}
	}
}

func TestOfCertificate(t *testing.T) {
	uri, _ := url.Parse("spiffe://example/a")
	c := &x509.Certificate{
		RawSubject: subject(t, []pkix.AttributeTypeAndValue{is(oidO, "o")}, []pkix.AttributeTypeAndValue{is(oidCN, "a")}),
		Subject:    pkix.Name{CommonName: "a", Names: []pkix.AttributeTypeAndValue{is(oidCN, "a")}}, URIs: []*url.URL{uri},
	}
	for how, want := range map[string]string{ByDN: "User:CN=a,O=o", ByCN: "User:a", BySANURI: "User:spiffe://example/a"} {
		if got, err := OfCertificate(c, how); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", how, got, err)
		}
	}
	c.Subject.Names, c.URIs, c.RawSubject = append(c.Subject.Names, c.Subject.Names...), nil, subject(t)
	for _, how := range []string{ByDN, ByCN, BySANURI, "other"} {
		if got, err := OfCertificate(c, how); err == nil {
			t.Errorf("%s: %v", how, got)
		}
	}
}

func FuzzSubject(f *testing.F) {
	f.Add(subject(f, []pkix.AttributeTypeAndValue{is(oidCN, "a,b")}))
	f.Fuzz(func(_ *testing.T, der []byte) { _, _ = Subject(der) })
}
