package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// firstPort is the port that the first bridge of a remote host listens on unless the configuration says otherwise; the next one takes
// the next. It is the one that IANA has assigned to OpenFlow.
const firstPort = 6653

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// completeHosts checks the list of hosts and says how each bridge is reached.
func (o *Options) completeHosts() error {
	seen := map[string]bool{}
	databases := map[string]string{}
	if len(o.Bridges) > 0 || len(o.Hosts) == 0 {
		databases[o.OVSDB] = "--ovsdb"
	}
	for i := range o.Hosts {
		h := &o.Hosts[i]
		switch {
		case !dnsLabel.MatchString(h.Name):
			return fmt.Errorf("hosts[%d]: name %q is not a DNS label (lower-case letters, digits and -)", i, h.Name)
		case seen[h.Name]:
			return fmt.Errorf("hosts[%d]: %s is named twice", i, h.Name)
		case h.OVSDB == "":
			return fmt.Errorf("host %s: ovsdb is missing (unix:PATH, tcp:ADDRESS:PORT or ssl:ADDRESS:PORT)", h.Name)
		case databases[h.OVSDB] != "":
			return fmt.Errorf("host %s: %s is that of %s", h.Name, h.OVSDB, databases[h.OVSDB])
		}
		seen[h.Name], databases[h.OVSDB] = true, "host "+h.Name
		for j := range h.Bridges {
			if strings.HasPrefix(h.OVSDB, "unix:") {
				if h.Bridges[j].Listen != nil {
					return fmt.Errorf("host %s: bridge %s: listen is for hosts that are reached over the network", h.Name, h.Bridges[j].Name)
				}
				continue
			}
			if err := h.reach(j); err != nil {
				return fmt.Errorf("host %s: bridge %s: %w", h.Name, h.Bridges[j].Name, err)
			}
		}
	}
	return nil
}

// reach works out, for a bridge of a remote host, where it has to listen and is dialled, unless the configuration says that it listens
// already.
func (h *HostOptions) reach(i int) error {
	b := &h.Bridges[i]
	if b.OpenFlow != "" {
		if b.Listen != nil {
			return errors.New("openflow says where it listens already, listen where tapwall makes it listen: give one of them")
		}
		return nil
	}
	at, address, err := h.listener(firstPort + i)
	if err != nil {
		return err
	}
	if b.Listen == nil {
		b.Listen = at
	}
	reachedAt(b, address)
	return nil
}

// listener is where a bridge of a remote host is to listen under a port, beside the database, and the host's address as it is written.
func (h *HostOptions) listener(port int) (at *vswitch.ControllerSpec, address string, err error) {
	method, rest, _ := strings.Cut(h.OVSDB, ":")
	address, _, err = net.SplitHostPort(rest)
	if err != nil || method != "tcp" && method != "ssl" {
		return nil, "", fmt.Errorf("ovsdb %q is none of unix:PATH, tcp:ADDRESS:PORT, ssl:ADDRESS:PORT", h.OVSDB)
	}
	at = &vswitch.ControllerSpec{Port: uint16(port), TLS: method == "ssl"}
	at.Addr, _ = netip.ParseAddr(address)
	return at, address, nil
}

// taps says where the bridges that tapwall makes for mirrors on a remote host listen: under the ports behind those of the configured ones.
// nil = it is the host that tapwall runs on.
func (h *HostOptions) taps() func(b *host.BridgeConfig, i int) {
	if strings.HasPrefix(h.OVSDB, "unix:") {
		return nil
	}
	port := firstPort
	for i := range h.Bridges {
		if l := h.Bridges[i].Listen; l != nil {
			port = max(port, int(l.Port)+1)
		}
	}
	return func(b *host.BridgeConfig, i int) {
		if at, address, err := h.listener(port + i); err == nil {
			b.Listen = at
			reachedAt(b, address)
		}
	}
}

// reachedAt completes where a bridge listens and is dialled, on a host of this address.
func reachedAt(b *host.BridgeConfig, address string) {
	b.Listen.Bridge = b.Name
	if b.Listen.Addr.IsValid() && !b.Listen.Addr.IsUnspecified() {
		address = b.Listen.Addr.String()
	}
	b.OpenFlow = "tcp:"
	if b.Listen.TLS {
		b.OpenFlow = "ssl:"
	}
	b.OpenFlow += net.JoinHostPort(address, strconv.Itoa(int(b.Listen.Port)))
}

// parseListen reads ptcp:PORT[:ADDRESS] or pssl:PORT[:ADDRESS], as a Controller row has it.
func parseListen(text string) (*vswitch.ControllerSpec, error) {
	method, rest, _ := strings.Cut(text, ":")
	port, address, some := strings.Cut(rest, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || method != "ptcp" && method != "pssl" {
		return nil, fmt.Errorf("listen: %q is neither ptcp:PORT[:ADDRESS] nor pssl:PORT[:ADDRESS]", text)
	}
	spec := &vswitch.ControllerSpec{Port: uint16(n), TLS: method == "pssl"}
	if some {
		if spec.Addr, err = netip.ParseAddr(strings.Trim(address, "[]")); err != nil || spec.Addr.Zone() != "" {
			return nil, fmt.Errorf("listen: %q is no address", address)
		}
	}
	return spec, nil
}

// task is something that runs until the process ends.
type task interface {
	Run(ctx context.Context) error
	String() string
}

// hosts makes the client of each host's database and the options of its engine.
func (o *Options) hosts(log *slog.Logger) (clients []task, hosts []host.Options, err error) {
	add := func(h HostOptions, tlsKey, dir string, log *slog.Logger) error {
		tlsConfig, err := h.TLS.switchConfig(tlsKey)
		switch {
		case err != nil:
			return err
		case tlsConfig == nil && strings.HasPrefix(h.OVSDB, "ssl:"):
			return fmt.Errorf("ovsdb %s: ssl needs a TLS configuration: %s with cert, key and ca", h.OVSDB, tlsKey)
		}
		options := ovsdb.Options{Address: h.OVSDB, TLS: tlsConfig, Logger: log, Steal: o.TakeOver}
		if options.Lock, err = ovsdb.NewLock(options); err != nil {
			return err
		}
		db, err := ovsdb.New(options)
		if err != nil {
			return err
		}
		clients = append(clients, options.Lock, db)
		hosts = append(hosts, host.Options{
			Name: h.Name, DB: db, Lock: options.Lock, TakeOver: o.TakeOver, Bridges: h.Bridges, Taps: h.taps(), RunDir: runDir(h.OVSDB),
			OpenFlowTLS: tlsConfig,
			HostFile:    filepath.Join(dir, "host-id"), MemoryDir: filepath.Join(dir, "connections"),
			HitsDir: filepath.Join(dir, "hits"), CaptureDir: filepath.Join(dir, "captures"),
			Learning: o.Learning.limits(), LearnedFile: filepath.Join(dir, "learned.json"),
			PeersFile:    filepath.Join(dir, "workloads.json"),
			PickupWindow: o.PickupWindow, SpoofGrace: o.SpoofGrace, ZoneLimit: o.ZoneLimit, Timeouts: o.Timeouts,
			EventRate: o.EventsPerSecond, MaxFlows: o.MaxFlows, Logger: log,
		})
		return nil
	}
	if len(o.Bridges) > 0 || len(o.Hosts) == 0 {
		if err := add(HostOptions{OVSDB: o.OVSDB, TLS: o.OVSTLS, Bridges: o.Bridges}, "ovs-tls", o.DataDir, log); err != nil {
			return nil, nil, err
		}
	}
	for _, h := range o.Hosts {
		if err := add(h, "tls", filepath.Join(o.DataDir, "hosts", h.Name), log.With("host", h.Name)); err != nil {
			return nil, nil, fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return clients, hosts, nil
}
