package e2e

import (
	"encoding/json"
	"errors"

	"github.com/tapwall/tapwall/api/wire"
)

// hostStatus is the part of a resource's status that belongs to this host.
type hostStatus struct {
	Phase, Reason, Message string
	Counters               map[string]int64
	Endpoints              []string
	Target                 map[string]string
	Targets                []map[string]string
}

func (s *stage) mirror(name string) hostStatus {
	s.t.Helper()
	var doc struct {
		Status struct{ Hosts []hostStatus }
	}
	must(s.t, json.Unmarshal([]byte(s.tapwall("get", "mirror", name, "-o", "json")), &doc))
	if len(doc.Status.Hosts) != 1 {
		return hostStatus{}
	}
	return doc.Status.Hosts[0]
}

// health is what the status says of br0.
type health struct {
	OpenFlow                     string
	DesiredFlows, InstalledFlows int
	FlowMods                     uint64
	Pickup                       bool
	NotTakenUp                   uint64
	Pickups                      []wire.PickupWindow
}

func (s *stage) health() health {
	s.t.Helper()
	h, ok := s.tryHealth()
	if !ok {
		s.t.Fatal("the status says nothing of br0")
	}
	return h
}

func (s *stage) tryHealth() (health, bool) {
	out, err := s.tw.Run("status", "-o", "json")
	// An unhealthy status is one too: the exit code tells, the document is complete.
	var doc struct {
		Hosts []struct {
			Bridges []struct {
				Bridge string
				health
			}
		}
	}
	if json.Unmarshal([]byte(out), &doc) != nil {
		s.t.Log(errors.Join(err, errors.New(out)))
		return health{}, false
	}
	for _, h := range doc.Hosts {
		for _, b := range h.Bridges {
			if b.Bridge == "br0" {
				return b.health, true
			}
		}
	}
	return health{}, false
}
