package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/security/scram"
)

// Bounds of a file with a cluster's first users.
const (
	maxBootstrapFile  = 1 << 20 // bytes
	maxBootstrapUsers = 1000
	bootstrapRetry    = time.Second
)

// firstUser is a user of the file, with a password or with what was derived from one.
type firstUser struct {
	name, password string
	credential     fsm.Credential
}

// String hides the password, wherever a user of the file is printed.
func (u firstUser) String() string { return "first user " + u.name }

// GoString is String.
func (u firstUser) GoString() string { return u.String() }

// readFirstUsers reads a file with a cluster's first users, a line each: NAME:PASSWORD, or what
// Kafka's kafka-storage takes for --add-scram. Empty lines and those that begin with # are passed
// over. Errors name the line and have nothing of what is in it.
func readFirstUsers(path string) ([]firstUser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// A group may read: that is how secrets are handed to who runs in a container.
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o027 != 0 {
		return nil, fmt.Errorf("%s: its mode is %v: others must not read it, and nobody else write to it (chmod 600)", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxBootstrapFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxBootstrapFile {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxBootstrapFile)
	}
	var users []firstUser
	seen := map[fsm.CredentialName]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		u, err := parseFirstUser(line)
		for _, m := range scramMechanisms {
			if name := (fsm.CredentialName{User: u.name, Mechanism: m.name}); err == nil && (u.password != "" || u.credential.Mechanism == m.name) {
				if seen[name] {
					err = errors.New("a user that is there already")
				}
				seen[name] = true
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, i+1, err)
		}
		users = append(users, u)
	}
	if len(users) == 0 || len(users) > maxBootstrapUsers {
		return nil, fmt.Errorf("%s: %d users, want 1 to %d", path, len(users), maxBootstrapUsers)
	}
	return users, nil
}

func parseFirstUser(line string) (u firstUser, err error) {
	for _, m := range scramMechanisms {
		if rest, ok := strings.CutPrefix(line, m.name+"=["); ok {
			return parseKafkaUser(m.name, rest)
		}
	}
	u.name, u.password, _ = strings.Cut(line, ":")
	if u.name == "" || len(u.name) > fsm.MaxUserName || u.password == "" || len(u.password) > maxPassword {
		return u, fmt.Errorf("want NAME:PASSWORD, 1 to %d and 1 to %d bytes, or SCRAM-SHA-512=[name=…,…]", fsm.MaxUserName, maxPassword)
	}
	return u, nil
}

var errKafkaUser = errors.New("want SCRAM-SHA-512=[name=NAME,iterations=N,salt=BASE64,saltedpassword=BASE64], as kafka-storage takes it")

// parseKafkaUser reads what kafka-storage takes for --add-scram, between its brackets; values may
// be in double quotes. A password in there is for NAME:PASSWORD.
func parseKafkaUser(mechanism, text string) (u firstUser, err error) {
	text, ok := strings.CutSuffix(strings.TrimRight(text, " "), "]")
	if !ok {
		return u, errKafkaUser
	}
	c := fsm.Credential{Mechanism: mechanism, Iterations: scramIterations}
	var salted []byte
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		switch key {
		case "name":
			c.User = value
		case "iterations":
			c.Iterations, err = strconv.Atoi(value)
		case "salt":
			c.Salt, err = base64.StdEncoding.DecodeString(value)
		case "saltedpassword":
			salted, err = base64.StdEncoding.DecodeString(value)
		default:
			err = errKafkaUser
		}
		if err != nil {
			return u, errKafkaUser // which has nothing of the value
		}
	}
	c.StoredKey, c.ServerKey = scram.Keys(mechanism, salted)
	if len(salted) != len(c.StoredKey) {
		return u, errKafkaUser
	}
	return firstUser{name: c.User, credential: c}, c.Check()
}

// credentials gives what the catalog keeps of the users. Of each password it takes some
// milliseconds.
func credentials(users []firstUser) (list []fsm.Credential, err error) {
	for _, u := range users {
		if u.password == "" {
			list = append(list, u.credential)
			continue
		}
		for _, m := range scramMechanisms {
			c := fsm.Credential{User: u.name, Mechanism: m.name, Salt: make([]byte, saltBytes), Iterations: scramIterations}
			_, _ = rand.Read(c.Salt) // never fails (crypto/rand)
			salted, err := scram.Salted(m.name, u.password, c.Salt, scramIterations)
			if err != nil {
				return nil, err
			}
			c.StoredKey, c.ServerKey = scram.Keys(m.name, salted)
			list = append(list, c)
		}
	}
	return list, nil
}

// createFirstUsers gives a cluster that never had a user those of the file. Whoever was deleted
// since, or has another password, stays so: the file counts once in a cluster's life, whichever
// node comes first. It returns when the cluster has had users, or ctx ends.
func createFirstUsers(ctx context.Context, c keeper, users []firstUser, log *slog.Logger) {
	var list []fsm.Credential
	for ctx.Err() == nil {
		changed := c.CatalogChanged()
		known := c.CatalogKnown()
		if known && c.Topics().Security().HadUsers() {
			return
		}
		if known {
			var err error
			if list == nil {
				list, err = credentials(users)
			}
			if err == nil {
				one, cancel := context.WithTimeout(ctx, 10*time.Second)
				err = c.AlterCredentials(one, fsm.AlterCredentials{Set: list, First: true})
				cancel()
			}
			if err == nil {
				log.Info("the cluster has its first users", "users", len(users))
				return
			}
			log.Warn("the users of --bootstrap-user-file are not there yet", "error", err)
		}
		if known {
			changed = nil // the next try is a second later, whatever changes
		}
		timer := time.NewTimer(bootstrapRetry)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}
