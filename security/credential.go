package security

// The mechanisms of SCRAM that Kafka knows.
const (
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// ScramCredential is what is kept of a user's password for one mechanism (RFC 5802,
// section 3). The password cannot be read from it.
type ScramCredential struct {
	Salt, StoredKey, ServerKey []byte
	Iterations                 int // 4096 to 16384
}

// Credentials are those of all users, as a node knows them at this moment. The catalog
// has them; whoever checks a password asks here and waits for nobody.
type Credentials interface {
	Scram(user, mechanism string) (ScramCredential, bool)
}
