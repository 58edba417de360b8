package ofctrl_test

import (
	"errors"
	"testing"

	"github.com/tapwall/tapwall/ofctrl"
)

// Ports are kept out of floods by OpenFlow 1.0 and out of everything by 1.3, and what was not asked for stays as it is.
func TestConfigurePorts(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	o.Vsctl("clear", "bridge", "br0", "protocols")
	o.AddPort("br0", "p1", 1)
	o.AddPort("br0", "p2", 2)
	o.Ofctl("mod-port", "br0", "p2", "no-forward")
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	check := func(what string, have map[uint32]uint32, err error, one, two uint32) {
		t.Helper()
		if err != nil || have[1] != one || have[2] != two {
			t.Errorf("%s: %v, %v", what, have, err)
		}
	}
	have, err := s.ConfigurePorts(t.Context(), map[uint32]uint32{1: ofctrl.PortNoForward, 77: ofctrl.PortNoForward})
	check("no-forward", have, err, ofctrl.PortNoForward, ofctrl.PortNoForward)
	have, err = s.FloodPorts(t.Context(), map[uint32]uint32{1: ofctrl.PortNoFlood})
	check("no-flood", have, err, ofctrl.PortNoFlood, 0)
	have, err = s.ConfigurePorts(t.Context(), nil)
	check("as it is", have, err, ofctrl.PortNoForward, ofctrl.PortNoForward)
	have, err = s.ConfigurePorts(t.Context(), map[uint32]uint32{1: 0})
	check("forward", have, err, 0, ofctrl.PortNoForward)
	have, err = s.FloodPorts(t.Context(), map[uint32]uint32{1: 0})
	check("flood", have, err, 0, 0)

	o.Vsctl("set", "bridge", "br0", "protocols=OpenFlow13")
	if _, err = s.FloodPorts(t.Context(), map[uint32]uint32{1: ofctrl.PortNoFlood}); !errors.Is(err, ofctrl.ErrNoOpenFlow10) {
		t.Errorf("without OpenFlow 1.0: %v", err)
	}
}
