package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Save writes name.crt and name.key into a directory, which is made if there is none. The files
// are for their owner alone (0600). Where one of them is there the error is an fs.ErrExist, unless
// replace: then each is replaced in one step, the key last, so that who reads both in between finds
// two that do not belong together, and not half of one.
func (p Pair) Save(dir, name string, replace bool) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", err
	}
	if !replace {
		for _, file := range []string{certFile, keyFile} {
			if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
				if err == nil {
					err = fs.ErrExist
				}
				return "", "", fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	for _, one := range []struct {
		file string
		data []byte
	}{{certFile, p.Cert}, {keyFile, p.Key}} {
		if err := save(one.file, one.data, replace); err != nil {
			return "", "", err
		}
	}
	return certFile, keyFile, nil
}

// save writes a file, replacing what is there in one step, and only if told to: of two that save at
// once without that, one fails.
func save(file string, data []byte, replace bool) error {
	var f *os.File
	var err error
	if replace {
		f, err = os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // 0600
	} else {
		f, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && replace {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// LoadCA reads a CA that was saved in a directory.
func LoadCA(dir, name string) (*CA, error) {
	certFile, keyFile := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	cert, err := read(certFile)
	if err != nil {
		return nil, err
	}
	key, err := read(keyFile)
	if err != nil {
		return nil, err
	}
	ca, err := ReadCA(Pair{Cert: cert, Key: key})
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", certFile, keyFile, err)
	}
	return ca, nil
}
