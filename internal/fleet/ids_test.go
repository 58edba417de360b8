package fleet_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

func (s *site) setID(id string) { s.Vsctl("set", "Open_vSwitch", ".", "external_ids:system-id="+id) }

// ruleIDs are the numbers of the rule of a policy, by what its host is called.
func (p *process) ruleIDs(name string) map[string]uint32 {
	out := map[string]uint32{}
	for _, h := range p.Status(policy.KindPolicy, name).Hosts {
		for _, r := range h.Rules {
			out[h.Host] = r.ID
		}
	}
	return out
}

// A host that takes the id of another goes on under its own, and what is told of the two stays apart; one that never had an id of its
// own is told of by its name. The id is its as soon as the other has given it up.
func TestHostsIDOfAnother(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"id-east", "id-west"} { // what west begins with
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			east, west := newSite(t, "east", "id-east", 1), newSite(t, "west", from, 2)
			p := start(t, newStore(t), east)
			p.ready()
			p.stop()
			p = start(t, newStore(t), east, west)
			called := "id-west"
			if from == "id-east" {
				p.eventually("told", func() error {
					hosts := p.Hosts() // without those that have not published anything yet
					if err := p.Ready(); err == nil || !strings.Contains(err.Error(), `both have the system-id "id-east"`) || len(hosts) != 2 ||
						hosts[0].ID == hosts[1].ID || hosts[0].ID != "id-east" && hosts[1].ID != "id-east" {
						return fmt.Errorf("ready: %v, hosts %+v", err, hosts)
					}
					return nil
				})
				gather(t, p.reg)
				return
			}
			p.ready()
			p.apply(allow("p", "{port: vm1}", "80"))
			ids := p.ruleIDs("p")
			west.setID("id-east")
			p.eventually("told", func() error {
				for _, h := range p.System().Hosts {
					if len(h.Warnings) == 1 && h.Host == called &&
						strings.Contains(h.Warnings[0].Message, `hosts east and west both have the system-id "id-east"; west goes by id-west until`) {
						return nil
					}
				}
				return fmt.Errorf("%+v", p.System().Hosts)
			})
			gather(t, p.reg)
			if s := p.apply(allow("q", "{port: vm1, host: id-west}", "81")); on(s, "id-west").Phase != policy.PhaseActive || east.gates() != 1 ||
				west.gates() != 2 {
				t.Errorf("%d and %d gates: %+v", east.gates(), west.gates(), s)
			}
			east.setID("other")
			p.eventually("known by the ids of the databases", func() error {
				if now := p.ruleIDs("p"); now["other"] != ids["id-east"] || now["id-east"] != ids["id-west"] || len(now) != 2 {
					return fmt.Errorf("%v, before %v", now, ids)
				}
				return p.Ready()
			})
			gather(t, p.reg)
		})
	}
}

// Two hosts exchange their ids, or somebody the addresses in the configuration, while tapwall is stopped: what is kept of the one, above
// all which numbers its connections carry, is neither lost nor taken for the other's.
func TestHostsIDsExchanged(t *testing.T) {
	t.Parallel()
	east, west := newSite(t, "east", "id-east", 1), newSite(t, "west", "id-west", 2)
	east.hostFile, west.hostFile = filepath.Join(t.TempDir(), "host-id"), filepath.Join(t.TempDir(), "host-id")
	st := newStore(t)
	p := start(t, st, east, west).ready()
	p.apply(allow("p", "{port: vm1}", "80"))
	ids := p.ruleIDs("p")
	p.stop()
	east.setID("id-west")
	west.setID("id-east")
	for range 2 {
		p = start(t, st, east, west).ready()
		if now := p.ruleIDs("p"); now["id-west"] != ids["id-east"] || now["id-east"] != ids["id-west"] {
			t.Errorf("numbers %v, before %v", now, ids)
		}
		p.stop()
	}
	west.setID("third")
	p = start(t, st, east, west).ready()
	p.eventually("moved", func() error {
		for _, h := range p.System().Hosts {
			if len(h.Warnings) > 0 {
				return fmt.Errorf("%+v", h.Warnings)
			}
		}
		return nil
	})
	if now := p.ruleIDs("p"); now["id-west"] != ids["id-east"] || now["third"] != ids["id-west"] {
		t.Errorf("numbers %v, before %v", now, ids)
	}
}

// A host that was never reached, called in the configuration what another has for its id, keeps nobody from reading the metrics of that
// one.
func TestHostsNameIsIDOfAnother(t *testing.T) {
	t.Parallel()
	east, west := newSite(t, "east", "west", 1), newSite(t, "west", "id-west", 2)
	west.address = "unix:" + filepath.Join(t.TempDir(), "db.sock") // where nobody listens
	p := start(t, newStore(t), east, west)
	p.eventually("one in force", func() error {
		if why := p.Engines()[0].Health().Unready; len(why) > 0 {
			return fmt.Errorf("%q", why)
		}
		return nil
	})
	if metrics := gather(t, p.reg); !strings.Contains(metrics, `tapwall_openflow_connected{bridge="br0",host="west"} 1`) {
		t.Errorf("metrics:\n%s", metrics)
	}
}
