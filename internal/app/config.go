package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/tapwall/tapwall/internal/host"
)

// file is the configuration file as written. Its keys are the names of serve's flags, plural where a flag is repeatable, and what has no flag.
type file struct {
	DataDir   string       `yaml:"data-dir"`
	Store     []string     `yaml:"store"`
	StoreTLS  tlsFile      `yaml:"store-tls"`
	OVSDB     string       `yaml:"ovsdb"`
	OVSTLS    tlsFile      `yaml:"ovs-tls"`
	Bridges   []bridgeFile `yaml:"bridges"`
	Listen    []string     `yaml:"listen"`
	TokenFile string       `yaml:"token-file"`
	TLSCert   string       `yaml:"tls-cert"`
	TLSKey    string       `yaml:"tls-key"`
	LogLevel  string       `yaml:"log-level"`
	LogFormat string       `yaml:"log-format"`
	Sinks     sinksFile    `yaml:"sinks"`
	Limits    limitsFile   `yaml:"limits"`
}

type tlsFile struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	CA   string `yaml:"ca"`
}

type bridgeFile struct {
	Name     string `yaml:"name"`
	Mode     string `yaml:"mode"`
	FailMode string `yaml:"fail-mode"`
	OpenFlow string `yaml:"openflow"`
}

type limitsFile struct {
	EventsPerSecond uint32 `yaml:"events-per-second"`
	Ring            int    `yaml:"ring"`
	PickupWindow    string `yaml:"pickup-window"`
}

// LoadFile reads a configuration file over o: what the file does not mention keeps its value. Errors name the file, the line and the key.
func (o *Options) LoadFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if err := o.load(b); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

func (o *Options) load(b []byte) error {
	var c file
	if err := yaml.UnmarshalWithOptions(b, &c, yaml.Strict()); err != nil && !errors.Is(err, io.EOF) {
		return errors.New(strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	for i, b := range c.Bridges {
		if b.Name == "" {
			return fmt.Errorf("bridges[%d]: name is missing", i)
		}
		o.Bridges = append(o.Bridges, host.BridgeConfig{Name: b.Name, Mode: host.Mode(b.Mode), FailMode: b.FailMode, OpenFlow: b.OpenFlow})
	}
	set(&o.DataDir, c.DataDir)
	set(&o.OVSDB, c.OVSDB)
	set(&o.TokenFile, c.TokenFile)
	set(&o.TLSCert, c.TLSCert)
	set(&o.TLSKey, c.TLSKey)
	set(&o.LogLevel, c.LogLevel)
	set(&o.LogFormat, c.LogFormat)
	set(&o.EventsPerSecond, c.Limits.EventsPerSecond)
	set(&o.RingLen, c.Limits.Ring)
	o.Store = append(o.Store, c.Store...)
	o.Listen = append(o.Listen, c.Listen...)
	set(&o.StoreTLS, TLSFiles(c.StoreTLS))
	set(&o.OVSTLS, TLSFiles(c.OVSTLS))
	if s := c.Limits.PickupWindow; s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 || d > 10*time.Minute {
			return fmt.Errorf("limits.pickup-window: %q is not a duration between 0 and 10m", s)
		}
		o.PickupWindow = d
	}
	c.Sinks.JSONL.apply(o)
	return nil
}

// set writes v to dst unless v is the zero value.
func set[T comparable](dst *T, v T) {
	var zero T
	if v != zero {
		*dst = v
	}
}
