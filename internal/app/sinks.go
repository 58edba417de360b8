package app

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/tapwall/tapwall/duration"
	"github.com/tapwall/tapwall/event/jsonl"
	"github.com/tapwall/tapwall/event/opensearch"
	"github.com/tapwall/tapwall/event/spool"
)

type sinksFile struct {
	JSONL      *jsonlFile      `yaml:"jsonl"`
	OpenSearch *openSearchFile `yaml:"opensearch"`
}

func (f *sinksFile) apply(o *Options) error {
	f.JSONL.apply(o)
	return f.OpenSearch.apply(o)
}

// jsonlFile is absent unless the file names it: then there is a sink only if there is a spool.
type jsonlFile struct {
	Dir      string `yaml:"dir"`
	MaxBytes int64  `yaml:"max-bytes"`
	Keep     int    `yaml:"keep"`
	Disabled bool   `yaml:"disabled"`
}

func (j *jsonlFile) apply(o *Options) {
	if j == nil {
		return
	}
	o.EventFile = !j.Disabled
	set(&o.EventDir, j.Dir)
	set(&o.EventFileBytes, j.MaxBytes)
	set(&o.EventFiles, j.Keep)
	o.NoEventFile = j.Disabled
}

type openSearchFile struct {
	URLs         []string          `yaml:"urls"`
	IndexPrefix  string            `yaml:"index-prefix"`
	Username     string            `yaml:"username"`
	PasswordFile string            `yaml:"password-file"`
	APIKeyFile   string            `yaml:"api-key-file"`
	TLSCA        string            `yaml:"tls-ca"`
	TLSCert      string            `yaml:"tls-cert"`
	TLSKey       string            `yaml:"tls-key"`
	Replicas     string            `yaml:"replicas"`
	Retention    map[string]string `yaml:"retention"`
}

func (f *openSearchFile) apply(o *Options) error {
	if f == nil {
		return nil
	}
	x := &opensearch.Options{
		URLs: f.URLs, Prefix: f.IndexPrefix, Username: f.Username, PasswordFile: f.PasswordFile, APIKeyFile: f.APIKeyFile,
		TLS: opensearch.TLS{CA: f.TLSCA, Cert: f.TLSCert, Key: f.TLSKey}, Replicas: f.Replicas, Retention: opensearch.DefaultRetention(),
	}
	if len(f.URLs) == 0 {
		return fmt.Errorf("sinks.opensearch.urls: name a node at least, such as https://192.0.2.1:9200")
	}
	for set, text := range f.Retention {
		if !slices.Contains(opensearch.Sets(), set) {
			return fmt.Errorf("sinks.opensearch.retention: there are no indices %q; there are %q", set, opensearch.Sets())
		}
		d, err := duration.Parse(text)
		if err != nil || d != 0 && d < 24*time.Hour {
			return fmt.Errorf("sinks.opensearch.retention.%s: %q is not a duration from 1d on, or 0 for ever", set, text)
		}
		x.Retention[set] = d
	}
	o.OpenSearch = x
	return nil
}

// openFile opens the file that events are copied to; nil = there is none.
func openFile(o *Options, sp *spool.Spool, log *slog.Logger) (*jsonl.Sink, error) {
	if o.NoEventFile {
		return nil, nil
	}
	if sp == nil && o.EventFile {
		return nil, fmt.Errorf("sinks.jsonl: it reads the spool, which spool.disabled turns off; leave either out")
	}
	if sp == nil {
		log.Info("there is no file of events: it reads the spool, which is turned off")
		return nil, nil
	}
	s, err := jsonl.Open(jsonl.Options{Dir: o.EventDir, Spool: sp, MaxBytes: o.EventFileBytes, Keep: o.EventFiles, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("event file: %w", err)
	}
	return s, nil
}

// openExport opens the export to a server; nil = there is none.
func openExport(o *Options, sp *spool.Spool, log *slog.Logger) (*opensearch.Sink, error) {
	if o.OpenSearch == nil {
		return nil, nil
	}
	if sp == nil {
		return nil, fmt.Errorf("sinks.opensearch: it reads the spool, which spool.disabled turns off; leave either out")
	}
	x := *o.OpenSearch
	x.Dir, x.Spool, x.Logger = filepath.Join(o.DataDir, "export"), sp, log
	return opensearch.Open(x)
}
