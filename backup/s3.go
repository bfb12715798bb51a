package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// s3Store keeps objects in a bucket of an S3-compatible store. An object is put in one request,
// which such stores do as a whole or not at all, on the condition that there is none with its key
// (If-None-Match). A store that does not know that condition says so, or ignores it. In the first
// case it is asked beforehand from then on. Neither harms: objects with records are named by their
// hash and manifests by chance, so whoever writes a name a second time writes the same bytes.
type s3Store struct {
	client         *minio.Client
	bucket, prefix string // the prefix is empty or ends with a slash
	readBack       bool   // what is put is read and compared
	unconditional  atomic.Bool
}

const defaultEndpoint = "https://s3.amazonaws.com"

func newS3(u *url.URL, readBack bool) (*s3Store, error) {
	shown := "s3://" + u.Host + u.Path
	options := u.Query()
	for name := range options {
		if name != "endpoint" && name != "region" {
			return nil, fmt.Errorf("%s: unknown option %q, want endpoint and region", shown, name)
		}
	}
	if u.User != nil {
		return nil, errors.New("s3://…: credentials belong in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), not in the URL")
	}
	endpoint := options.Get("endpoint")
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	e, err := url.Parse(endpoint)
	if err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https" || e.Path != "" && e.Path != "/" || e.User != nil || e.RawQuery != "" {
		return nil, fmt.Errorf("%s: endpoint %q, want https://host:port", shown, endpoint)
	}
	prefix := strings.Trim(u.Path, "/")
	if u.Host == "" || u.Fragment != "" || prefix != "" && checkKey(prefix) != nil {
		return nil, fmt.Errorf("%s: want s3://bucket/prefix, the prefix of letters, digits, '-', '_' and '.'", shown)
	}
	if prefix != "" {
		prefix += "/"
	}
	transport, err := minio.DefaultTransport(e.Scheme == "https")
	if err != nil {
		return nil, err
	}
	client, err := minio.New(e.Host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Client: &http.Client{Transport: transport}},
		}),
		Secure: e.Scheme == "https", Region: options.Get("region"), Transport: transport,
		// Tries are counted in one place (patient).
		MaxRetries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	return &s3Store{client: client, bucket: u.Host, prefix: prefix, readBack: readBack}, nil
}

func (s *s3Store) String() string {
	return strings.TrimSuffix("s3://"+s.bucket+"/"+s.prefix, "/") + " at " + s.client.EndpointURL().Host
}

// fullCodes are what stores say that have no room, of which some do not say so by their status.
var fullCodes = []string{"InsufficientCapacity", "InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}

// said is what an error of the store means.
func said(key string, err error) error {
	if err == nil {
		return nil
	}
	r := minio.ToErrorResponse(err)
	switch {
	case r.StatusCode == http.StatusPreconditionFailed || r.Code == minio.PreconditionFailed:
		return fmt.Errorf("%s %w", key, ErrExists)
	case r.Code == minio.NoSuchKey || r.StatusCode == http.StatusNotFound && r.Code != minio.NoSuchBucket:
		return fmt.Errorf("%s %w", key, ErrNotFound)
	case r.StatusCode == http.StatusInsufficientStorage || slices.Contains(fullCodes, r.Code):
		return fmt.Errorf("%w: %s: %w", ErrFull, key, err)
	case r.StatusCode == http.StatusForbidden || r.StatusCode == http.StatusUnauthorized || r.Code == minio.NoSuchBucket:
		return fmt.Errorf("%w: %s: %w", errDenied, key, err)
	}
	return fmt.Errorf("%s: %w", key, err)
}

// unknownCondition says whether the store does not know If-None-Match.
func unknownCondition(err error) bool {
	return minio.ToErrorResponse(err).StatusCode == http.StatusNotImplemented
}

func (s *s3Store) Put(ctx context.Context, key string, data []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	options := minio.PutObjectOptions{ContentType: "application/octet-stream", DisableMultipart: true, SendContentMd5: !s.readBack}
	put := func() error {
		_, err := s.client.PutObject(ctx, s.bucket, s.prefix+key, bytes.NewReader(data), int64(len(data)), options)
		return err
	}
	if !s.unconditional.Load() {
		options.SetMatchETagExcept("*")
		err := put()
		if err == nil || !unknownCondition(err) {
			return said(key, err)
		}
		s.unconditional.Store(true)
		options = minio.PutObjectOptions{ContentType: options.ContentType, DisableMultipart: true, SendContentMd5: !s.readBack}
	}
	_, err := s.client.StatObject(ctx, s.bucket, s.prefix+key, minio.StatObjectOptions{})
	if err == nil {
		return fmt.Errorf("%s %w", key, ErrExists)
	}
	if err := said(key, err); !errors.Is(err, ErrNotFound) {
		return err
	}
	return said(key, put())
}

func (s *s3Store) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	object, err := s.client.GetObject(ctx, s.bucket, s.prefix+key, minio.GetObjectOptions{})
	if err != nil {
		return nil, said(key, err)
	}
	defer object.Close()
	data, err := readAll(object, key, limit)
	if err != nil && !errors.Is(err, errTooLarge) {
		return nil, said(key, err)
	}
	return data, err
}

func (s *s3Store) Size(ctx context.Context, key string) (int64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	info, err := s.client.StatObject(ctx, s.bucket, s.prefix+key, minio.StatObjectOptions{})
	return info.Size, said(key, err)
}

func (s *s3Store) Same(ctx context.Context, key string, data []byte) (bool, error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	object, err := s.client.GetObject(ctx, s.bucket, s.prefix+key, minio.GetObjectOptions{})
	if err != nil {
		return false, said(key, err)
	}
	defer object.Close()
	is, err := same(object, data)
	return is, said(key, err)
}

func (s *s3Store) List(ctx context.Context, prefix string, each func(Stored) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the library's goroutine ends with it
	for o := range s.client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true}) {
		if o.Err != nil {
			return said("the list of "+prefix, o.Err)
		}
		key, ok := strings.CutPrefix(o.Key, s.prefix)
		if !ok {
			return fmt.Errorf("the store lists %q, which does not begin with %q", o.Key, s.prefix)
		}
		if err := each(Stored{Key: key, Bytes: o.Size, Modified: o.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *s3Store) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	err := said(key, s.client.RemoveObject(ctx, s.bucket, s.prefix+key, minio.RemoveObjectOptions{}))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
