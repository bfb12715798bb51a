package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

const (
	// format is the version of everything in a store (FORMAT.md).
	format = 1
	// maxManifest bounds a manifest, in bytes: room for two million objects.
	maxManifest = 512 << 20
	// maxObject bounds an object with records: what is cut at objectBytes, and a batch behind that.
	maxObject = objectBytes + kafkaproto.FrameLimit
	// maxTorn bounds Manifest.Torn, in bytes.
	maxTorn = 500
	// objectBytes is the size from which on an object ends.
	objectBytes = 16 << 20
)

// ErrDamaged is in errors about objects that are not what was stored.
var ErrDamaged = errors.New("damaged")

// ErrNewer is in errors about objects of a newer program.
var ErrNewer = errors.New("written by a newer version of the program")

// Manifest is one backup: what it has, and where that lies.
type Manifest struct {
	Format    int    `json:"format"`
	ID        string `json:"id"`
	ClusterID string `json:"cluster_id"`
	// Started and Finished are ms since epoch, by the clock of who made it. All that was committed
	// before Started is in it.
	Started  int64 `json:"started"`
	Finished int64 `json:"finished"`
	// CatalogOnly: no records were read for it. It names those that the newest backup before it has
	// of all topics, whose records are of Records or newer (ms since epoch; 0: there are none). A
	// partition's objects then end in front of its End, and what is between was not copied.
	CatalogOnly bool  `json:"catalog_only,omitempty"`
	Records     int64 `json:"records,omitempty"`
	// Patterns are those of the topics that were asked for; none: all.
	Patterns []string `json:"patterns,omitempty"`
	// Whole: what there is of a transaction in these topics, and of its groups' offsets in them, is
	// in it entirely or, as a transaction that is open, not at all. Torn says why that is not sure.
	// Neither is there with CatalogOnly, nor of clusters with nodes that do not know either.
	Whole    bool                  `json:"whole,omitempty"`
	Torn     string                `json:"torn,omitempty"`
	Topics   []Topic               `json:"topics"`
	Groups   []Group               `json:"groups"`
	Security admin.CatalogSecurity `json:"security"`

	withTier bool // it was put together with what a tier has, and is in no store (Gather)
}

// Topic is a topic in a backup.
type Topic struct {
	Name              string            `json:"name"`
	ID                fsm.TopicID       `json:"id"`
	ReplicationFactor int               `json:"replication_factor"`
	Configs           map[string]string `json:"configs,omitempty"`
	// Compacted and DeleteRetentionMs are as in admin.TopicCopy.
	Compacted         bool        `json:"compacted,omitempty"`
	DeleteRetentionMs int64       `json:"delete_retention_ms,omitempty"`
	Partitions        []Partition `json:"partitions"`
}

// Partition is the log of a partition from Start to the offset before End.
type Partition struct {
	Start int64 `json:"start"`
	End   int64 `json:"end"`
	// Epoch is the leader epoch at the time.
	Epoch   int32    `json:"epoch"`
	Objects []Object `json:"objects,omitempty"`
}

// Object is a run of record batches: all that the log has from First to the offset before Next.
type Object struct {
	First  int64  `json:"first"`
	Next   int64  `json:"next"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // hexadecimal
	// MaxProducer is the largest producer id in it; -1: none.
	MaxProducer int64 `json:"max_producer"`
	MaxEpoch    int32 `json:"max_epoch"` // the largest leader epoch in it

	// tierKey is where it lies in the store of a tier; "": it is no object of a backup's store.
	// Then MaxProducer is not known, and Next may be behind what is in it.
	tierKey string
	// tierSettled: what is in it of a transaction is committed, whether or not the marker is there,
	// but for those of tierAborted, which are left out: the log was compacted.
	tierSettled bool
	tierAborted []fsm.AbortedTransaction
	// gaps: offsets are missing in it. Only who has just read it knows.
	gaps bool
}

// Group is the offsets that a consumer group has committed.
type Group struct {
	ID      string        `json:"id"`
	Offsets []GroupOffset `json:"offsets"`
}

// GroupOffset is one of them.
type GroupOffset struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Offset    int64   `json:"offset"`
	Epoch     int32   `json:"epoch"` // -1: the client did not say
	Metadata  *string `json:"metadata,omitempty"`
}

// Time is when the backup was begun.
func (m *Manifest) Time() time.Time { return time.UnixMilli(m.Started) }

// recordsTime is when the reading of the records was begun that it has.
func (m *Manifest) recordsTime() time.Time {
	if m.CatalogOnly {
		return time.UnixMilli(m.Records)
	}
	return m.Time()
}

// Bytes counts what the manifest names.
func (m *Manifest) Bytes() (n int64) {
	for o := range m.objects() {
		n += o.Bytes
	}
	return n
}

// objects gives all objects that the manifest names, with their keys.
func (m *Manifest) objects() func(yield func(Object, string) bool) {
	return func(yield func(Object, string) bool) {
		for i := range m.Topics {
			t := &m.Topics[i]
			for p := range t.Partitions {
				for _, o := range t.Partitions[p].Objects {
					if !yield(o, objectKey(t.ID, int32(p), o)) {
						return
					}
				}
			}
		}
	}
}

// topic finds a topic by its id.
func (m *Manifest) topic(id fsm.TopicID) *Topic {
	for i := range m.Topics {
		if m.Topics[i].ID == id {
			return &m.Topics[i]
		}
	}
	return nil
}

// magic begins a manifest's first line; the SHA-256 of what is behind that line follows.
const magic = "trimaran-backup 1 "

const headLine = len(magic) + 2*sha256.Size + 1

// encode gives a manifest as it is stored.
func (m *Manifest) encode() ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(text) > maxManifest-headLine {
		return nil, fmt.Errorf("a manifest of %d bytes, want at most %d: back up less topics at once", len(text), maxManifest-headLine)
	}
	return sealed(text), nil
}

// sealed gives a text behind its first line.
func sealed(text []byte) []byte {
	sum := sha256.Sum256(text)
	return append([]byte(magic+hex.EncodeToString(sum[:])+"\n"), text...)
}

// parseManifest reads what encode gave, and checks all that is relied on. The error wraps
// ErrDamaged or ErrNewer.
func parseManifest(data []byte) (*Manifest, error) {
	const family = "trimaran-backup "
	if !bytes.HasPrefix(data, []byte(family)) {
		return nil, fmt.Errorf("%w: it is no manifest", ErrDamaged)
	}
	if !bytes.HasPrefix(data, []byte(magic)) {
		version, _, _ := strings.Cut(string(data[len(family):min(len(data), len(family)+8)]), " ")
		return nil, fmt.Errorf("%w: format %q, this program knows %d", ErrNewer, version, format)
	}
	if len(data) < headLine || data[headLine-1] != '\n' {
		return nil, fmt.Errorf("%w: its first line is cut", ErrDamaged)
	}
	text := data[headLine:]
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != string(data[len(magic):headLine-1]) {
		return nil, fmt.Errorf("%w: it is not what its first line says", ErrDamaged)
	}
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		// A newer program's is whole, and may have fields that are not known here.
		var lax Manifest
		if json.Unmarshal(text, &lax) == nil {
			return nil, fmt.Errorf("%w: %w", ErrNewer, err)
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: more than one JSON value", ErrDamaged)
	}
	if m.Format > format {
		return nil, fmt.Errorf("%w: format %d, this program knows %d", ErrNewer, m.Format, format)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &m, nil
}

// check says whether it can be a backup of a cluster.
func (m *Manifest) check() error {
	if m.Format != format {
		return fmt.Errorf("format %d in a manifest of format %d", m.Format, format)
	}
	if !isID(m.ID) {
		return fmt.Errorf("id %q", m.ID)
	}
	if m.ClusterID == "" || len(m.ClusterID) > 64 || m.Started < 0 || m.Finished < m.Started {
		return fmt.Errorf("cluster %q, from %d to %d", m.ClusterID, m.Started, m.Finished)
	}
	if m.Records < 0 || m.Records > m.Started || m.Records > 0 && !m.CatalogOnly {
		return fmt.Errorf("begun at %d, with records of %d", m.Started, m.Records)
	}
	if m.Whole && m.Torn != "" || len(m.Torn) > 8*maxTorn { // JSON may have made bytes runes
		return fmt.Errorf("transactions that are whole and torn: %q", m.Torn)
	}
	names, ids := map[string]bool{}, map[fsm.TopicID]bool{}
	for i := range m.Topics {
		t := &m.Topics[i]
		if err := kafkaproto.CheckTopicName(t.Name); err != nil {
			return err
		}
		if names[t.Name] || ids[t.ID] || t.ID.IsZero() || t.ReplicationFactor < 1 || len(t.Partitions) < 1 || len(t.Partitions) > fsm.MaxPartitions {
			return fmt.Errorf("topic %s: id %s, %d replicas, %d partitions, or one of its name or id comes twice", t.Name, t.ID, t.ReplicationFactor, len(t.Partitions))
		}
		names[t.Name], ids[t.ID] = true, true
		for p := range t.Partitions {
			if err := t.Partitions[p].check(); err != nil {
				return fmt.Errorf("topic %s, partition %d: %w", t.Name, p, err)
			}
		}
	}
	for _, g := range m.Groups {
		for _, o := range g.Offsets {
			if o.Offset < 0 || o.Partition < 0 || o.Epoch < -1 {
				return fmt.Errorf("group %q: offset %d of partition %d, epoch %d", g.ID, o.Offset, o.Partition, o.Epoch)
			}
		}
	}
	return nil
}

// check says whether the objects are a log from Start to End.
func (p *Partition) check() error {
	if p.Start < 0 || p.End < p.Start || p.End > math.MaxInt64/2 || p.Epoch < 0 {
		return fmt.Errorf("offsets %d to %d in epoch %d", p.Start, p.End, p.Epoch)
	}
	if len(p.Objects) == 0 {
		return nil // nothing was left of what there was
	}
	next := p.Objects[0].First
	if next > p.Start || p.Objects[0].Next <= p.Start {
		return fmt.Errorf("the log begins at %d, its first object has %d to %d", p.Start, next, p.Objects[0].Next)
	}
	for _, o := range p.Objects {
		if o.First != next || o.Next <= o.First || o.First < 0 {
			return fmt.Errorf("an object with offsets %d to %d where %d comes next", o.First, o.Next, next)
		}
		if sum, err := hex.DecodeString(o.SHA256); err != nil || len(sum) != sha256.Size || strings.ToLower(o.SHA256) != o.SHA256 {
			return fmt.Errorf("SHA-256 %q", o.SHA256)
		}
		if o.Bytes < kafkaproto.BatchHeaderSize || o.Bytes > maxObject || o.MaxProducer < -1 || o.MaxEpoch < 0 {
			return fmt.Errorf("an object of %d bytes, producer ids up to %d", o.Bytes, o.MaxProducer)
		}
		next = o.Next
	}
	if next > p.End {
		return fmt.Errorf("the objects end at %d, the log at %d", next, p.End)
	}
	return nil
}

// maxProducer is the largest producer id in a topic; -1: none.
func (t *Topic) maxProducer() int64 {
	largest := int64(-1)
	for i := range t.Partitions {
		for _, o := range t.Partitions[i].Objects {
			largest = max(largest, o.MaxProducer)
		}
	}
	return largest
}
