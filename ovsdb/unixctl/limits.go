package unixctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// ZoneLimit is how many connections a conntrack zone may have and has.
type ZoneLimit struct {
	Zone         uint16
	Limit, Count int
}

// ZoneLimits returns the zones of a datapath ("netdev@ovs-netdev"; "" = the only one) that have a limit of their own.
func (d Daemon) ZoneLimits(ctx context.Context, datapath string) ([]ZoneLimit, error) {
	text, err := d.Call(ctx, "dpctl/ct-get-limits", Scope{Datapath: datapath}.args()...)
	if err != nil {
		return nil, err
	}
	return parseLimits(text)
}

// SetZoneLimits gives zones a limit of their own.
func (d Daemon) SetZoneLimits(ctx context.Context, datapath string, limit int, zones []uint16) error {
	args := Scope{Datapath: datapath}.args()
	for _, z := range zones {
		args = append(args, fmt.Sprintf("zone=%d,limit=%d", z, limit))
	}
	_, err := d.Call(ctx, "dpctl/ct-set-limits", args...)
	return err
}

// DeleteZoneLimits takes it from them.
func (d Daemon) DeleteZoneLimits(ctx context.Context, datapath string, zones []uint16) error {
	names := make([]string, len(zones))
	for i, z := range zones {
		names[i] = strconv.Itoa(int(z))
	}
	_, err := d.Call(ctx, "dpctl/ct-del-limits", append(Scope{Datapath: datapath}.args(), "zone="+strings.Join(names, ","))...)
	return err
}

// parseLimits reads a line "default limit=0" and lines "zone=57344,limit=1000,count=12".
func parseLimits(text string) ([]ZoneLimit, error) {
	var out []ZoneLimit
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "default") {
			continue
		}
		var l ZoneLimit
		if _, err := fmt.Sscanf(line, "zone=%d,limit=%d,count=%d", &l.Zone, &l.Limit, &l.Count); err != nil {
			return nil, fmt.Errorf("unixctl: dpctl/ct-get-limits: %.80q: %w", line, err)
		}
		out = append(out, l)
	}
	return out, nil
}
