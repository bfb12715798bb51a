package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/backup"
)

// backupOptions is what a node knows of the backups that it makes.
type backupOptions struct {
	url      string // "": none
	interval time.Duration
	keep     int // 0: all
}

const leastBackupInterval = 10 * time.Second

func addNodeBackupFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("backup-to", "", "`URL` of the store that backups go to, file:///path or s3://bucket/prefix?endpoint=…; the same on all nodes, of which one makes them")
	f.Duration("backup-interval", time.Hour, "time from the beginning of one backup to that of the next")
	f.Int("backup-keep", 0, "how many backups stay there, the newest (default: all)")
}

func nodeBackupsOf(cmd *cobra.Command) (o backupOptions, err error) {
	f := cmd.Flags()
	o.url, _ = f.GetString("backup-to")
	o.interval, _ = f.GetDuration("backup-interval")
	o.keep, _ = f.GetInt("backup-keep")
	if o.url == "" {
		if f.Changed("backup-interval") || f.Changed("backup-keep") {
			return o, usagef("--backup-interval and --backup-keep say nothing without --backup-to")
		}
		return o, nil
	}
	if o.interval < leastBackupInterval || o.keep < 0 {
		return o, usagef("--backup-interval %v, --backup-keep %d: want at least %v and 0", o.interval, o.keep, leastBackupInterval)
	}
	if _, err := backup.Open(o.url); err != nil {
		return o, usagef("--backup-to: %w", err)
	}
	return o, nil
}

// backups makes backups at intervals, at the node that leads the catalog. When another node comes
// to lead it, that one goes on: when the last was begun it reads in the store.
type backups struct {
	backupOptions
	store *backup.Repository
	leads func() bool // whether this node leads the catalog
	log   *slog.Logger
	from  func() (*backupCluster, error)

	mu     sync.Mutex // guards status; nothing is done under it but to look and to put
	status *admin.BackupStatus
}

func newBackups(o backupOptions, socket string, log *slog.Logger) (*backups, error) {
	store, err := backup.Open(o.url)
	if err != nil {
		return nil, err
	}
	b := &backups{backupOptions: o, store: &backup.Repository{Store: store}, log: log}
	b.from = func() (*backupCluster, error) {
		here, err := parseBroker("unix:" + socket)
		if err != nil {
			return nil, err
		}
		return clusterForBackup(&brokers{list: []broker{here}}, backupPatience)
	}
	return b, nil
}

// noteBackup says which the last backup is.
func noteBackup(s *admin.BackupStatus, m *backup.Manifest) {
	s.ID, s.BegunMs, s.TookMs, s.Bytes = m.ID, m.Started, m.Finished-m.Started, m.Bytes()
	s.Torn = m.Torn
}

const (
	// backupTick is how often a node looks whether it is the one, and whether it is time.
	backupTick = time.Second
	// backupRetry is the pause before a backup that failed is begun anew.
	backupRetry = time.Minute
)

// Status is what an operator sees; nil at nodes that do not make backups now.
func (b *backups) Status() *admin.BackupStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.status == nil {
		return nil
	}
	s := *b.status
	return &s
}

// reported is Status for who asks a node that may make none.
func (b *backups) reported() func() *admin.BackupStatus {
	if b == nil {
		return nil
	}
	return b.Status
}

func (b *backups) change(f func(*admin.BackupStatus)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.status == nil {
		b.status = &admin.BackupStatus{To: b.store.Store.String(), IntervalMs: b.interval.Milliseconds()}
	}
	f(b.status)
}

// run makes backups until ctx ends.
func (b *backups) run(ctx context.Context) {
	tick := time.NewTicker(backupTick)
	defer tick.Stop()
	known := false // when the last one was begun
	var next time.Time
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !b.leads() {
			known, next = false, time.Time{}
			b.mu.Lock()
			b.status = nil
			b.mu.Unlock()
			continue
		}
		if time.Now().Before(next) {
			continue
		}
		if !known {
			last, err := b.last(ctx)
			if err != nil {
				next = b.failed(ctx, "the last backup cannot be read", err)
				continue
			}
			known = true
			if next = last.Add(b.interval); time.Now().Before(next) {
				continue
			}
		}
		began := time.Now()
		if err := b.make(ctx, began); err != nil {
			next = b.failed(ctx, "a backup was not made", err)
			continue
		}
		next = began.Add(b.interval)
	}
}

// failed notes a failure and gives when to try again.
func (b *backups) failed(ctx context.Context, what string, err error) time.Time {
	if ctx.Err() != nil || !b.leads() {
		return time.Time{}
	}
	b.log.Error(what, "to", b.store.Store.String(), "error", err)
	b.change(func(s *admin.BackupStatus) {
		s.Failed, s.FailedInAll, s.Error = s.Failed+1, s.FailedInAll+1, err.Error()
	})
	return time.Now().Add(min(backupRetry, b.interval))
}

// last gives when the newest backup in the store was begun; zero: there is none.
func (b *backups) last(ctx context.Context) (time.Time, error) {
	m, err := b.store.NewestKnown(ctx)
	if errors.Is(err, backup.ErrNotFound) {
		b.change(func(*admin.BackupStatus) {})
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	b.change(func(s *admin.BackupStatus) { noteBackup(s, m) })
	return m.Time(), nil
}

// make makes a backup, and deletes old ones. It ends when another node leads the catalog.
func (b *backups) make(ctx context.Context, began time.Time) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	defer func() { <-watched }()
	defer cancel(nil)
	go func() {
		defer close(watched)
		tick := time.NewTicker(backupTick)
		defer tick.Stop()
		for b.leads() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		cancel(errors.New("another node makes backups now"))
	}()
	c, err := b.from()
	if err != nil {
		return err
	}
	defer c.close()
	made, err := backup.Create(ctx, c, b.store, backup.Options{})
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	b.log.Info("a backup was made", "id", made.Manifest.ID, "to", b.store.Store.String(), "bytes", made.Manifest.Bytes(),
		"uploaded", made.Uploaded, "took", time.Since(began).Round(time.Millisecond))
	if torn := made.Torn; torn != "" {
		b.log.Warn("transactions may be torn in a backup", "id", made.Manifest.ID, "why", torn)
	}
	b.change(func(s *admin.BackupStatus) {
		noteBackup(s, made.Manifest)
		s.Torn = made.Torn
		s.Uploaded, s.Failed, s.Error = made.Uploaded, 0, ""
	})
	if b.keep == 0 {
		return nil
	}
	pruned, err := backup.Prune(ctx, b.store, backup.PruneOptions{Keep: b.keep})
	if err != nil {
		return fmt.Errorf("it was made, and old ones are not deleted: %w", err)
	}
	if len(pruned.Backups)+len(pruned.Orphans) > 0 {
		b.log.Info("old backups are deleted", "backups", len(pruned.Backups), "objects", len(pruned.Orphans), "bytes", pruned.OrphanBytes)
	}
	return nil
}

var (
	metricBackupLast     = prometheus.NewDesc("trimaran_backup_last_timestamp_seconds", "When the last backup was begun, seconds since 1970; at the node that makes them.", nil, nil)
	metricBackupTook     = prometheus.NewDesc("trimaran_backup_last_duration_seconds", "How long the last backup took.", nil, nil)
	metricBackupBytes    = prometheus.NewDesc("trimaran_backup_last_bytes", "Bytes of the last backup.", nil, nil)
	metricBackupUploaded = prometheus.NewDesc("trimaran_backup_last_uploaded_bytes", "Bytes of the last backup that were new to the store.", nil, nil)
	metricBackupFailed   = prometheus.NewDesc("trimaran_backup_failures_total", "Backups that were not made, since this node makes them.", nil, nil)
)

// Describe implements prometheus.Collector.
func (b *backups) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricBackupLast, metricBackupTook, metricBackupBytes, metricBackupUploaded, metricBackupFailed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Nodes that do not make backups now say nothing.
func (b *backups) Collect(ch chan<- prometheus.Metric) {
	s := b.Status()
	if s == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	if s.ID != "" {
		gauge(metricBackupLast, float64(s.BegunMs)/1000)
		gauge(metricBackupTook, float64(s.TookMs)/1000)
		gauge(metricBackupBytes, float64(s.Bytes))
		gauge(metricBackupUploaded, float64(s.Uploaded))
	}
	ch <- prometheus.MustNewConstMetric(metricBackupFailed, prometheus.CounterValue, float64(s.FailedInAll))
}

// backupText is the line of `cluster status` about backups, "" where no node makes some.
func backupText(status *admin.Status, now time.Time) string {
	for _, n := range status.Nodes {
		s := n.Backup
		if s == nil {
			continue
		}
		text := fmt.Sprintf("Backups: to %s every %s by %s, ", s.To, time.Duration(s.IntervalMs)*time.Millisecond, n.ID)
		if s.ID == "" {
			text += "none yet"
		} else {
			text += fmt.Sprintf("last %s ago (%s, %s)", now.Sub(time.UnixMilli(s.BegunMs)).Round(time.Second), s.ID, showBytes(s.Bytes))
		}
		if s.Torn != "" {
			text += "; transactions may be TORN in it: " + s.Torn
		}
		if s.Failed > 0 {
			text += fmt.Sprintf("; FAILED %s: %s", times(s.Failed), s.Error)
		}
		return text
	}
	return ""
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
