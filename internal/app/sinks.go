package app

import (
	"fmt"
	"log/slog"

	"github.com/tapwall/tapwall/event/jsonl"
	"github.com/tapwall/tapwall/event/record"
)

// sinks opens what events are copied to, in the order in which statuses show them; nil = it is not configured. A new sink is a package
// like event/jsonl, a line here, and its keys in sinksFile.
var sinks = []func(*Options, *slog.Logger) (record.Sink, error){
	openJSONL,
}

type sinksFile struct {
	JSONL *jsonlFile `yaml:"jsonl"`
}

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
	set(&o.EventDir, j.Dir)
	set(&o.EventFileBytes, j.MaxBytes)
	set(&o.EventFiles, j.Keep)
	o.NoEventFile = j.Disabled
}

func openJSONL(o *Options, log *slog.Logger) (record.Sink, error) {
	if o.NoEventFile {
		return nil, nil
	}
	s, err := jsonl.Open(jsonl.Options{Dir: o.EventDir, MaxBytes: o.EventFileBytes, Keep: o.EventFiles, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("event file: %w", err)
	}
	return s, nil
}
