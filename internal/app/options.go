// Package app puts tapwall together: it is the only package that knows every other one.
package app

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tapwall/tapwall/event/opensearch"
	"github.com/tapwall/tapwall/event/spool"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/internal/learn"
	"github.com/tapwall/tapwall/internal/lists"
	"github.com/tapwall/tapwall/internal/pki"
)

// Options says what `tapwall serve` runs. The fields are named after its flags.
type Options struct {
	DataDir         string   // default /var/lib/tapwall
	Store           []string // endpoints of an external etcd; empty = embedded
	StoreTLS        TLSFiles
	OVSDB           string // default unix:/var/run/openvswitch/db.sock
	OVSTLS          TLSFiles
	Bridges         []host.BridgeConfig
	Hosts           []HostOptions // further hosts, or instead of that of OVSDB if it has no Bridges
	Listen          []string      // unix:PATH or tcp:ADDR; default unix:/run/tapwall/tapwall.sock
	TokenFile       string
	TLSCert         string
	TLSKey          string
	LogLevel        string        // debug | info | warn | error
	LogFormat       string        // text | json
	EventsPerSecond uint32        // per bridge; 0 = the engine's default
	MaxFlows        int           // per host; 0 = the engine's default
	RingLen         int           // events kept in memory; 0 = 16,384
	PickupWindow    time.Duration // 0 = none
	SpoofGrace      time.Duration // 0 = none
	Learning        Learning
	TakeOver        bool          // take the hosts from another tapwall, and the primary role on owned bridges; not in the file
	Lists           lists.Options // those of the file; the rest is filled in
	EventDir        string        // default DataDir/events
	ZoneLimit       int           // connections in each conntrack zone; 0 = tapwall sets no limit
	Timeouts        map[string]int
	EventFileBytes  int64
	EventFiles      int
	NoEventFile     bool
	EventFile       bool                // somebody asked for the file; else there is none without a spool
	OpenSearch      *opensearch.Options // nil = events are not exported there; what is of this run is filled in
	SpoolDir        string              // default DataDir/spool
	SpoolBytes      int64               // of the record on disk; default 2 GiB
	SpoolAge        time.Duration       // default 72 h
	NoSpool         bool                // events are kept in memory only
	Version         string
	Stderr          io.Writer // logs; nil = os.Stderr
}

// Learning says how addresses are learned of endpoints. 0 = the default.
type Learning struct {
	Disabled             bool
	PerEndpoint, PerHost int
	Age                  time.Duration
	Networks             []netip.Prefix
}

// limits returns the bounds; nil = none are learned.
func (l Learning) limits() *learn.Limits {
	if l.Disabled {
		return nil
	}
	networks := l.Networks
	if networks == nil {
		networks = learn.Private()
	}
	return &learn.Limits{Networks: networks, PerEndpoint: cmp.Or(l.PerEndpoint, DefaultLearnPerEndpoint), PerHost: cmp.Or(l.PerHost,
		DefaultLearnPerHost),
		Age: cmp.Or(l.Age, DefaultLearnAge)}
}

// HostOptions is a host that is managed over the network, or another Open vSwitch of this machine.
type HostOptions struct {
	Name    string // a DNS label; it names the host until its system-id is known, and its directory below DataDir
	OVSDB   string
	TLS     TLSFiles
	Bridges []host.BridgeConfig
}

// TLSFiles names PEM files. ServerName is for switches only, see pki.Files.
type TLSFiles struct{ Cert, Key, CA, ServerName string }

// Defaults of the options that have one of their own.
const (
	DefaultDataDir = "/var/lib/tapwall"
	DefaultListen  = "unix:/run/tapwall/tapwall.sock"
	DefaultOVSDB   = "unix:/var/run/openvswitch/db.sock"

	DefaultPickupWindow = 10 * time.Second
	DefaultSpoofGrace   = 24 * time.Hour

	DefaultLearnPerEndpoint = 16
	DefaultLearnPerHost     = 8192
	DefaultLearnAge         = 30 * time.Minute

	// defaultRing keeps a full ring at about 25 MB: an event takes 1.5 kB.
	defaultRing = 16384
)

func (o *Options) complete() error {
	if o.DataDir == "" {
		o.DataDir = DefaultDataDir
	}
	if o.OVSDB == "" {
		o.OVSDB = DefaultOVSDB
	}
	if len(o.Listen) == 0 {
		o.Listen = []string{DefaultListen}
	}
	if o.EventDir == "" {
		o.EventDir = filepath.Join(o.DataDir, "events")
	}
	if o.SpoolDir == "" {
		o.SpoolDir = filepath.Join(o.DataDir, "spool")
	}
	o.SpoolBytes = cmp.Or(o.SpoolBytes, spool.DefaultMaxBytes)
	o.SpoolAge = cmp.Or(o.SpoolAge, spool.DefaultMaxAge)
	if o.RingLen == 0 {
		o.RingLen = defaultRing
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if !strings.HasPrefix(o.OVSDB, "unix:") {
		for _, b := range o.Bridges {
			if b.OpenFlow == "" {
				return fmt.Errorf("bridge %s: the database is not on this host (%s), so the configuration file has to say where the bridge's OpenFlow "+
					"listener is (openflow: tcp:HOST:PORT or ssl:HOST:PORT), or has the host in its list of hosts", b.Name, o.OVSDB)
			}
		}
	}
	return o.completeHosts()
}

// runDir is where the management sockets of the bridges are: beside the database's.
func runDir(ovsdb string) string { return filepath.Dir(strings.TrimPrefix(ovsdb, "unix:")) }

func (o *Options) logger() (*slog.Logger, error) {
	var level slog.Level
	if o.LogLevel != "" {
		if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
			return nil, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", o.LogLevel)
		}
	}
	h := &slog.HandlerOptions{Level: level}
	switch o.LogFormat {
	case "", "text":
		return slog.New(slog.NewTextHandler(o.Stderr, h)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(o.Stderr, h)), nil
	}
	return nil, fmt.Errorf("log-format: %q is neither text nor json", o.LogFormat)
}

// switchConfig returns the client configuration towards OVS; nil without files. Errors name the key of the configuration.
func (f TLSFiles) switchConfig(key string) (*tls.Config, error) {
	if f == (TLSFiles{}) {
		return nil, nil
	}
	config, err := pki.Files(f).Config()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return config, nil
}
