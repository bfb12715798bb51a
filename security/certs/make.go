package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// Pair is a certificate and its key, both in PEM.
type Pair struct {
	Cert, Key []byte
}

// CA signs the certificates of one cluster.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	Pair
}

// early is how long before now a certificate begins to be valid: clocks differ.
const early = time.Hour

// NewCA makes a CA that is valid for that long. It signs certificates and no further CAs.
func NewCA(life time.Duration) (*CA, error) {
	var tag [4]byte
	rand.Read(tag[:])
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Trimaran CA " + hex.EncodeToString(tag[:])},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	pair, err := sign(t, nil, life)
	if err != nil {
		return nil, err
	}
	return ReadCA(pair)
}

// ReadCA takes a CA that NewCA made, or another one with an ECDSA key.
func ReadCA(pair Pair) (*CA, error) {
	cert, err := parseOne(pair.Cert)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, errors.New("the certificate is not that of a CA")
	}
	block, _ := pem.Decode(pair.Key)
	if block == nil {
		return nil, errors.New("no key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key cannot be read: want PKCS #8")
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || !ec.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the key is not that of the certificate")
	}
	return &CA{cert: cert, key: ec, Pair: pair}, nil
}

// Node makes the certificate of the node with that id, by which it dials others and is dialed.
// hosts are names and addresses by which clients call it: with them the certificate serves clients
// as well.
func (ca *CA) Node(nodeID string, hosts []string, life time.Duration) (Pair, error) {
	if !validNodeID(nodeID) {
		return Pair{}, fmt.Errorf("node id %q: want 1 to %d of a-z, 0-9 and '-'", nodeID, maxNodeID)
	}
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: nodeID},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{NodeURI(nodeID)},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		t.DNSNames = append(t.DNSNames, host)
	}
	return sign(t, ca, life)
}

// Client makes the certificate of a client of that name. No node takes it for a node's.
func (ca *CA) Client(name string, life time.Duration) (Pair, error) {
	if name == "" || len(name) > 64 {
		return Pair{}, errors.New("want a client's name of 1 to 64 bytes")
	}
	return sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, life)
}

// sign makes a key and has its certificate signed, by itself if there is no CA. It is never valid
// for longer than its CA.
func sign(t *x509.Certificate, ca *CA, life time.Duration) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return Pair{}, err
	}
	now := time.Now()
	t.NotBefore, t.NotAfter = now.Add(-early), now.Add(life)
	t.BasicConstraintsValid = true
	parent, signer := t, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
		t.KeyUsage = x509.KeyUsageDigitalSignature
		if now.After(ca.cert.NotAfter) {
			return Pair{}, fmt.Errorf("the CA was valid until %s", ca.cert.NotAfter.Format(time.DateOnly))
		}
		if t.NotAfter.After(ca.cert.NotAfter) {
			t.NotAfter = ca.cert.NotAfter
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return Pair{}, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}),
	}, nil
}

// parseOne reads the first certificate in PEM.
func parseOne(data []byte) (*x509.Certificate, error) {
	all, err := parseAll(data)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// parseAll reads all certificates in PEM; none is an error.
func parseAll(data []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate in it cannot be read: %w", err)
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return all, nil
}
