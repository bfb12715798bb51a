package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// secretSize is that of the file with the secret, in bytes.
const secretSize = 32

// Process tells the processes of one identity apart.
type Process struct {
	Boot    uint64 // random
	Started uint64 // ms since the epoch
}

// before says which of two was started first; the random numbers decide between two of one
// millisecond.
func (p Process) before(q Process) bool {
	return p.Started < q.Started || p.Started == q.Started && p.Boot < q.Boot
}

// Secret is random, and minted with the data directory or, for one of an older program, at its next
// start. Only a copy of the directory has it, too.
type Secret [secretSize]byte

// readSecret gives that of the directory, minting it where there is none. It is on stable storage
// on return.
func (d *Dir) readSecret() (s Secret, err error) {
	path := d.Join(secretName)
	data, err := vfs.ReadFile(d.fs, path, secretSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		rand.Read(s[:])
		return s, vfs.ReplaceFile(d.fs, path, s[:])
	case err != nil:
		return s, err
	case len(data) != secretSize:
		return s, fmt.Errorf("%s is damaged: it has %d bytes, not %d; remove it, and a new one is made", path, len(data), secretSize)
	}
	copy(s[:], data)
	return s, nil
}

// Prove answers who asks whether this process has the data directory of its identity: nobody can
// who has not, and the answer fits no other question and no other process.
func (id *Identity) Prove(nonce [16]byte, process Process) [sha256.Size]byte {
	mac := hmac.New(sha256.New, id.secret[:])
	mac.Write([]byte("trimaran twin 1\x00"))
	mac.Write(nonce[:])
	var numbers [16]byte
	binary.BigEndian.PutUint64(numbers[:], process.Boot)
	binary.BigEndian.PutUint64(numbers[8:], process.Started)
	mac.Write(numbers[:])
	mac.Write([]byte(id.name))
	return [sha256.Size]byte(mac.Sum(nil))
}
