package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/tapwall/tapwall/duration"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/internal/learn"
	"github.com/tapwall/tapwall/internal/lists"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// file is the configuration file as written. Its keys are the names of serve's flags, plural where a flag is repeatable, and what has no
// flag.
type file struct {
	DataDir   string       `yaml:"data-dir"`
	Store     []string     `yaml:"store"`
	StoreTLS  tlsFile      `yaml:"store-tls"`
	OVSDB     string       `yaml:"ovsdb"`
	OVSTLS    switchTLS    `yaml:"ovs-tls"`
	Bridges   []bridgeFile `yaml:"bridges"`
	Hosts     []hostFile   `yaml:"hosts"`
	Listen    []string     `yaml:"listen"`
	TokenFile string       `yaml:"token-file"`
	TLSCert   string       `yaml:"tls-cert"`
	TLSKey    string       `yaml:"tls-key"`
	LogLevel  string       `yaml:"log-level"`
	LogFormat string       `yaml:"log-format"`
	Spool     spoolFile    `yaml:"spool"`
	Sinks     sinksFile    `yaml:"sinks"`
	Lists     listsFile    `yaml:"group-lists"`
	Limits    limitsFile   `yaml:"limits"`
	Learning  learningFile `yaml:"learning"`
}

type tlsFile struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	CA   string `yaml:"ca"`
}

type switchTLS struct {
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	CA         string `yaml:"ca"`
	ServerName string `yaml:"server-name"`
}

type bridgeFile struct {
	Name     string `yaml:"name"`
	Mode     string `yaml:"mode"`
	FailMode string `yaml:"fail-mode"`
	Record   struct {
		Connections string `yaml:"connections"`
		Denies      string `yaml:"denies"`
		DNS         *bool  `yaml:"dns"` // absent = true
	} `yaml:"record"`
	OpenFlow string `yaml:"openflow"`
	Listen   string `yaml:"listen"` // hosts only
}

type hostFile struct {
	Name    string       `yaml:"name"`
	OVSDB   string       `yaml:"ovsdb"`
	TLS     switchTLS    `yaml:"tls"`
	Bridges []bridgeFile `yaml:"bridges"`
}

type listsFile struct {
	Dir       string   `yaml:"dir"`
	PlainHTTP bool     `yaml:"plain-http"`
	Allow     []string `yaml:"allow"`
	CA        string   `yaml:"ca"`
}

// apply fills the options of lists but for what they do not share with the file.
func (f *listsFile) apply(o *lists.Options) error {
	set(&o.Dir, f.Dir)
	set(&o.CAFile, f.CA)
	set(&o.PlainHTTP, f.PlainHTTP)
	for i, s := range f.Allow {
		p, err := policy.ParseCIDR(s)
		if err != nil {
			return fmt.Errorf("group-lists.allow[%d]: %q %w", i, s, err)
		}
		o.Allow = append(o.Allow, p)
	}
	return nil
}

type limitsFile struct {
	EventsPerSecond uint32 `yaml:"events-per-second"`
	Flows           int    `yaml:"flows"`
	Ring            int    `yaml:"ring"`
	PickupWindow    string `yaml:"pickup-window"`
	SpoofGrace      string `yaml:"spoof-grace"`
	ZoneConnections int    `yaml:"connections-per-zone"`
	// Timeouts of conntrack, in seconds by the names of CT_Timeout_Policy.
	Timeouts map[string]int `yaml:"timeouts"`
}

type spoolFile struct {
	Dir      string `yaml:"dir"`
	MaxBytes int64  `yaml:"max-bytes"`
	MaxAge   string `yaml:"max-age"`
	Disabled bool   `yaml:"disabled"`
}

// The least that a spool may be bounded to, and the most.
const (
	minSpoolBytes, maxSpoolBytes = 16 << 20, 1 << 40
	minSpoolAge, maxSpoolAge     = time.Minute, 366 * 24 * time.Hour
)

func (f *spoolFile) apply(o *Options) error {
	set(&o.SpoolDir, f.Dir)
	set(&o.NoSpool, f.Disabled)
	if n := f.MaxBytes; n != 0 && (n < minSpoolBytes || n > maxSpoolBytes) {
		return fmt.Errorf("spool.max-bytes: %d is not between %d and %d", n, minSpoolBytes, maxSpoolBytes)
	}
	set(&o.SpoolBytes, f.MaxBytes)
	if f.MaxAge == "" {
		return nil
	}
	var err error
	if o.SpoolAge, err = duration.Parse(f.MaxAge); err != nil || o.SpoolAge < minSpoolAge || o.SpoolAge > maxSpoolAge {
		return fmt.Errorf("spool.max-age: %q is not a duration between 1m and 366d", f.MaxAge)
	}
	return nil
}

type learningFile struct {
	Disabled    bool     `yaml:"disabled"`
	PerEndpoint int      `yaml:"addresses-per-endpoint"`
	PerHost     int      `yaml:"addresses-per-host"`
	Age         string   `yaml:"age"`
	Networks    []string `yaml:"networks"`
}

func (f *learningFile) apply(l *Learning) error {
	for _, n := range []struct {
		key  string
		v    int
		most int
	}{{"addresses-per-endpoint", f.PerEndpoint, 1024}, {"addresses-per-host", f.PerHost, 65536}} {
		if n.v < 0 || n.v > n.most {
			return fmt.Errorf("learning.%s: %d is not between 1 and %d", n.key, n.v, n.most)
		}
	}
	for i, s := range f.Networks {
		p, err := policy.ParseCIDR(s)
		if err != nil {
			return fmt.Errorf("learning.networks[%d]: %q %w", i, s, err)
		}
		l.Networks = append(l.Networks, p)
	}
	set(&l.Disabled, f.Disabled)
	set(&l.PerEndpoint, f.PerEndpoint)
	set(&l.PerHost, f.PerHost)
	if f.Age == "" {
		return nil
	}
	var err error
	if l.Age, err = duration.Parse(f.Age); err != nil || l.Age < time.Second || l.Age > learn.MaxLease {
		return fmt.Errorf("learning.age: %q is not a duration between 1s and %v", f.Age, learn.MaxLease)
	}
	return nil
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
		return errors.New(wrongType.ReplaceAllStringFunc(strings.TrimSpace(yaml.FormatError(err, false, true)), inWords))
	}
	bridges, err := bridgesOf(c.Bridges)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(bridges, func(b host.BridgeConfig) bool { return b.Listen != nil }); i >= 0 {
		return fmt.Errorf("bridges[%d]: listen is for bridges of hosts that are reached over the network", i)
	}
	o.Bridges = append(o.Bridges, bridges...)
	for i, h := range c.Hosts {
		bridges, err := bridgesOf(h.Bridges)
		if err != nil {
			return fmt.Errorf("hosts[%d]: %w", i, err)
		}
		o.Hosts = append(o.Hosts, HostOptions{Name: h.Name, OVSDB: h.OVSDB, TLS: TLSFiles(h.TLS), Bridges: bridges})
	}
	set(&o.DataDir, c.DataDir)
	set(&o.OVSDB, c.OVSDB)
	set(&o.TokenFile, c.TokenFile)
	set(&o.TLSCert, c.TLSCert)
	set(&o.TLSKey, c.TLSKey)
	set(&o.LogLevel, c.LogLevel)
	set(&o.LogFormat, c.LogFormat)
	set(&o.EventsPerSecond, c.Limits.EventsPerSecond)
	if c.Limits.Flows < 0 {
		return fmt.Errorf("limits.flows: %d is no number of flows", c.Limits.Flows)
	}
	set(&o.MaxFlows, c.Limits.Flows)
	set(&o.RingLen, c.Limits.Ring)
	o.Store = append(o.Store, c.Store...)
	o.Listen = append(o.Listen, c.Listen...)
	set(&o.StoreTLS, TLSFiles{Cert: c.StoreTLS.Cert, Key: c.StoreTLS.Key, CA: c.StoreTLS.CA})
	set(&o.OVSTLS, TLSFiles(c.OVSTLS))
	if s := c.Limits.PickupWindow; s != "" {
		d, err := duration.Parse(s)
		if err != nil || d > 10*time.Minute {
			return fmt.Errorf("limits.pickup-window: %q is not a duration between 0 and 10m", s)
		}
		o.PickupWindow = d
	}
	if n := c.Limits.ZoneConnections; n < 0 || n > 1<<31-1 {
		return fmt.Errorf("limits.connections-per-zone: %d is not a number of connections", n)
	}
	set(&o.ZoneLimit, c.Limits.ZoneConnections)
	for name, v := range c.Limits.Timeouts {
		if !slices.Contains(vswitch.TimeoutNames(), name) {
			return fmt.Errorf("limits.timeouts: there is no timeout %q; there are %s", name, strings.Join(vswitch.TimeoutNames(), ", "))
		}
		if v < 1 || v > 1<<31-1 {
			return fmt.Errorf("limits.timeouts: %s: %d is not a number of seconds", name, v)
		}
	}
	if len(c.Limits.Timeouts) > 0 {
		o.Timeouts = c.Limits.Timeouts
	}
	if s := c.Limits.SpoofGrace; s != "" {
		d, err := duration.Parse(s)
		if err != nil {
			return fmt.Errorf("limits.spoof-grace: %q: %w", s, err)
		}
		o.SpoofGrace = d
	}
	if err := c.Learning.apply(&o.Learning); err != nil {
		return err
	}
	if err := c.Spool.apply(o); err != nil {
		return err
	}
	if err := c.Sinks.apply(o); err != nil {
		return err
	}
	return c.Lists.apply(&o.Lists)
}

func bridgesOf(files []bridgeFile) (out []host.BridgeConfig, err error) {
	for i, b := range files {
		if b.Name == "" {
			return nil, fmt.Errorf("bridges[%d]: name is missing", i)
		}
		c := host.BridgeConfig{Name: b.Name, Mode: host.Mode(b.Mode), FailMode: b.FailMode, OpenFlow: b.OpenFlow,
			NoDNS: b.Record.DNS != nil && !*b.Record.DNS}
		c.Record = policy.Record{Connections: b.Record.Connections, Denies: b.Record.Denies}
		if fault := c.Record.Fault(); fault != "" {
			return nil, fmt.Errorf("bridges[%d]: record.%s", i, fault)
		}
		if b.Listen != "" {
			if c.Listen, err = parseListen(b.Listen); err != nil {
				return nil, fmt.Errorf("bridges[%d]: %w", i, err)
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// set writes v to dst unless v is the zero value.
func set[T comparable](dst *T, v T) {
	var zero T
	if v != zero {
		*dst = v
	}
}

// wrongType is how the YAML decoder says that a value is of another type than its key.
var wrongType = regexp.MustCompile(`cannot unmarshal (\w+) into Go struct field \S+ of type (\S+)`)

// inWords says the same to who writes configurations.
func inWords(text string) string {
	m := wrongType.FindStringSubmatch(text)
	switch want := m[2]; {
	case strings.HasPrefix(want, "int"), strings.HasPrefix(want, "uint"):
		return "want a whole number, not a " + m[1]
	case want == "bool":
		return "want true or false, not a " + m[1]
	case want == "string":
		return "want a text, not a " + m[1]
	}
	return "not a " + m[1]
}
