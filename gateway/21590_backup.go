package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// Backup, version 0: Trimaran's own, for `trimaran backup` and for nodes that make backups, and
// like Status not listed by ApiVersions.
//
// The request has header version 1, the length of a JSON text (int32), the text, which is an
// admin.BackupRequest, and record batches, if it has any to restore. The response is as that of
// Status, with the JSON of admin.BackupAnswer, whose error is empty if it was done. Records of
// topics, and offsets of groups, are read with Kafka's own APIs.

// BackupKey is the API key of Backup.
const BackupKey = StatusKey + 4

const (
	backupTimeout = 30 * time.Second
	// maxBackupText is room for a topic with as many partitions as there may be.
	maxBackupText = 16 << 20
)

// errClearBackup keeps what is derived from passwords from who can listen.
var errClearBackup = errors.New("what is derived from users' passwords could be read on the way: come over TLS, loopback or the Unix socket")

// mayTravel says why a copy of the catalog must not be sent to who comes in clear.
func mayTravel(c *admin.CatalogCopy, clear bool) error {
	if clear && len(c.Security.Credentials) > 0 {
		return errClearBackup
	}
	return nil
}

// Backups is what backups and restores ask of the cluster.
type Backups interface {
	// CopyCatalog gives what a backup keeps of the catalog, as it was when the call began or newer.
	CopyCatalog(ctx context.Context) (*admin.CatalogCopy, error)
	// HoldCommits has no transaction commit for a moment, a few seconds at most, and returns when
	// all that were decided have their markers everywhere. ReleaseCommits ends it, and says whether
	// it was so all along.
	HoldCommits(ctx context.Context) ([]admin.Hold, error)
	ReleaseCommits(ctx context.Context, holds []admin.Hold) (held bool, err error)
	// RestoreBatches appends batches that keep their offsets to a partition of a topic that is
	// being restored, and gives the next offset. What is there already is left out. last: nothing
	// follows.
	RestoreBatches(ctx context.Context, p fsm.PartitionID, batches []kafkaproto.Batch, last bool) (next fsm.Offset, err error)
	// EndRestore lets clients append to a topic that was restored.
	EndRestore(ctx context.Context, end fsm.EndRestore) error
}

// serveBackup begins to answer. An error ends the connection.
func (r *request) serveBackup(body []byte) error {
	asked, batches, err := parseBackup(body)
	if r.header.Version != 0 || err != nil {
		err := fmt.Errorf("%w: Backup version %d with %d bytes", kafkaproto.ErrNotServed, r.header.Version, len(body))
		r.hangUp(err)
		return err
	}
	r.background(func() {
		ctx, cancel := context.WithTimeout(r.reply.Open(), backupTimeout)
		defer cancel()
		var answer admin.BackupAnswer
		if err := r.backup(ctx, asked, batches, &answer); err != nil {
			answer = admin.BackupAnswer{Error: message(err)}
			switch outcome.Code(err) {
			case outcome.ErrNoLeader, outcome.ErrNotLeader, outcome.ErrUnknownFate, outcome.ErrTimeout, outcome.ErrShuttingDown, outcome.ErrStorage:
				answer.Retriable = true
			}
		}
		r.answerJSON(BackupKey, answer, nil)
	})
	return nil
}

// parseBackup reads a request. The batches alias body.
func parseBackup(body []byte) (asked admin.BackupRequest, batches []kafkaproto.Batch, err error) {
	if len(body) < 4 {
		return asked, nil, kafkaproto.ErrCorrupt
	}
	n := binary.BigEndian.Uint32(body)
	if uint64(n) > uint64(len(body)-4) || n > maxBackupText {
		return asked, nil, kafkaproto.ErrCorrupt
	}
	if err := fsm.DecodeStrictly(body[4:4+n], &asked); err != nil {
		return asked, nil, err
	}
	for batch, err := range kafkaproto.Batches(body[4+n:]) {
		if err != nil {
			return asked, nil, err
		}
		batches = append(batches, batch)
	}
	return asked, batches, nil
}

func (r *request) backup(ctx context.Context, asked admin.BackupRequest, batches []kafkaproto.Batch, answer *admin.BackupAnswer) (err error) {
	s := r.conn.server
	if len(batches) > 0 && asked.Op != admin.RestoreBatches {
		return fmt.Errorf("%w: batches with %q", errInvalidRequest, asked.Op)
	}
	switch {
	case asked.Op == admin.BackupCatalog:
		r.noteBackup(asked)
		answer.Catalog, err = s.backups.CopyCatalog(ctx)
		if err == nil {
			err = mayTravel(answer.Catalog, r.conn.client.Facts.Clear)
		}
	case asked.Op == admin.HoldCommits:
		r.noteBackup(asked)
		answer.Holds, err = s.backups.HoldCommits(ctx)
	case asked.Op == admin.ReleaseCommits && len(asked.Holds) <= coordinator.Shards:
		answer.Held, err = s.backups.ReleaseCommits(ctx, asked.Holds)
	case asked.Op == admin.RestoreTopic && asked.Create != nil && asked.Create.Restore != nil:
		r.noteBackup(asked)
		err = s.changes.CreateTopic(ctx, *asked.Create, false)
	case asked.Op == admin.RestoreBatches:
		id := fsm.PartitionID{Topic: asked.Topic, Partition: asked.Partition}
		if _, ok := s.catalog.Topics().Partition(id); !ok {
			return fmt.Errorf("%w: the topic is not known here yet, or not any more", outcome.ErrNoLeader)
		}
		answer.Next, err = s.backups.RestoreBatches(ctx, id, batches, asked.Last)
	case asked.Op == admin.EndRestore:
		r.noteBackup(asked)
		err = s.backups.EndRestore(ctx, fsm.EndRestore{Topic: asked.Topic, Producers: asked.Producers})
	case asked.Op == admin.RestoreSecurity && asked.Security != nil:
		r.noteBackup(asked)
		err = r.restoreSecurity(ctx, asked.Security)
	default:
		err = fmt.Errorf("%w: %q is nothing that can be asked for", errInvalidRequest, asked.Op)
	}
	return err
}

// restoreSecurity sets credentials and adds ACLs. What is there beside them stays.
func (r *request) restoreSecurity(ctx context.Context, security *admin.CatalogSecurity) error {
	changes := r.conn.server.changes
	if len(security.Credentials) > 0 {
		if err := changes.AlterCredentials(ctx, fsm.AlterCredentials{Set: security.Credentials}); err != nil {
			return err
		}
	}
	if len(security.ACLs) > 0 {
		_, err := changes.AlterACLs(ctx, security.ACLs, nil)
		return err
	}
	return nil
}

// noteBackup writes down who reads all credentials, or changes what is there.
func (r *request) noteBackup(asked admin.BackupRequest) {
	id := r.conn.identity()
	r.conn.server.cfg.Audit.Note("backup", audit.Event{Who: id.Principal.String(), From: id.Host, What: "Backup", Why: shownToLog(string(asked.Op))})
}
