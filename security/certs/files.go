package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// maxFile bounds what is read of one file, in bytes.
const maxFile = 1 << 20

// Files are where a certificate with its chain, its key and the CAs that others are verified
// against are kept, all in PEM.
type Files struct {
	Cert, Key, CA string
}

// Bundle is what is in Files. It is not changed.
type Bundle struct {
	Pair  tls.Certificate
	Leaf  *x509.Certificate   // nil: no certificate
	CAs   *x509.CertPool      // nil: no file with CAs
	Roots []*x509.Certificate // those in CAs, of Load

	sum [sha256.Size]byte
}

// Load reads the files. Certificate and key must belong together, and one of the CAs must have
// signed the certificate for servers and for clients, and be valid now as it is. What is in the
// files is in no error.
func (f Files) Load() (*Bundle, error) {
	b, cas, err := f.loadParts()
	if err != nil {
		return nil, err
	}
	if b.Roots, err = parseAll(cas); err != nil {
		return nil, fmt.Errorf("%s: %w", f.CA, err)
	}
	b.CAs = x509.NewCertPool()
	for _, root := range b.Roots {
		b.CAs.AddCert(root)
	}
	chain, err := x509.ParseCertificates(join(b.Pair.Certificate))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Cert, err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := b.Verify(chain, usage, time.Now()); err != nil {
			return nil, fmt.Errorf("%s is not signed by %s as it should be: %w", f.Cert, f.CA, err)
		}
	}
	return b, nil
}

// loadParts reads those of the files that have a name. What is in the file with CAs is given as it
// is, too.
func (f Files) loadParts() (b *Bundle, cas []byte, err error) {
	var data [3][]byte
	sum := sha256.New()
	for i, name := range []string{f.Cert, f.Key, f.CA} {
		if name == "" {
			continue
		}
		if data[i], err = read(name); err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(sum, "%d %d ", i, len(data[i]))
		sum.Write(data[i])
	}
	b = &Bundle{}
	sum.Sum(b.sum[:0])
	if f.Cert != "" || f.Key != "" {
		if b.Pair, err = tls.X509KeyPair(data[0], data[1]); err != nil {
			return nil, nil, fmt.Errorf("%s, %s: %w", f.Cert, f.Key, err)
		}
		b.Leaf = b.Pair.Leaf
	}
	if f.CA != "" {
		b.CAs = x509.NewCertPool()
		if !b.CAs.AppendCertsFromPEM(data[2]) {
			return nil, nil, fmt.Errorf("no certificate in %s", f.CA)
		}
	}
	return b, data[2], nil
}

// Verify gives an error unless one of the CAs has signed the first of the certificates for that
// usage and it is valid at that time. The others may stand between the two.
func (b *Bundle) Verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, at time.Time) error {
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	if chain[0].IsCA {
		return errors.New("it is the certificate of a CA")
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: b.CAs, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	return err
}

// Watched are Files that are read again when they change.
type Watched struct {
	load func() (*Bundle, error)
	now  atomic.Pointer[Bundle]

	// mu is held by who reads the files again. Nothing is taken under it, and readers of now do not
	// take it.
	mu     locks.Slow[Watched]
	failed string // why what is there now cannot be taken, "" if it was
}

// Watch reads the files as Load does. check may refuse what is in them, now and later; nil takes
// all.
func Watch(files Files, check func(*Bundle) error) (*Watched, error) {
	return watch(func() (*Bundle, error) {
		b, err := files.Load()
		if err == nil && check != nil {
			err = check(b)
		}
		return b, err
	})
}

// WatchParts is Watch for who shows a certificate to others than those whose certificates the CAs
// sign: certificate and key, or the CAs, may have no name.
func WatchParts(files Files) (*Watched, error) {
	if (files.Cert == "") != (files.Key == "") {
		return nil, errors.New("a certificate and its key go together")
	}
	return watch(func() (*Bundle, error) {
		b, _, err := files.loadParts()
		return b, err
	})
}

func watch(load func() (*Bundle, error)) (*Watched, error) {
	w := &Watched{load: load}
	b, err := load()
	if err != nil {
		return nil, err
	}
	w.now.Store(b)
	return w, nil
}

// Now is what was in the files when they were last read with success.
func (w *Watched) Now() *Bundle { return w.now.Load() }

// Reload reads the files again. changed says whether Now has become another one. After an error it
// is as before; the same error is given once, so that who asks again and again may log what it
// gets.
func (w *Watched) Reload() (changed bool, err error) {
	locks.MayWait("reading certificates")
	w.mu.Lock()
	defer w.mu.Unlock()
	b, err := w.load()
	if err == nil && b.sum == w.now.Load().sum {
		w.failed = ""
		return false, nil
	}
	if err != nil {
		if w.failed == err.Error() {
			return false, nil
		}
		w.failed = err.Error()
		return false, err
	}
	w.failed = ""
	w.now.Store(b)
	return true, nil
}

// read gives what is in a file of at most maxFile bytes.
func read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	return data, err
}

func join(parts [][]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
