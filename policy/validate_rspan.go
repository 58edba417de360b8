package policy

// MaxVLAN is the highest VLAN that frames can have (IEEE 802.1Q, clause 9.6).
const MaxVLAN = 4094

// Floods returns the VLAN that the mirror copies to; nil = it delivers otherwise.
func (s *MirrorSpec) Floods() *RSPANTarget {
	for _, t := range s.Targets {
		if t.RSPAN != nil {
			return t.RSPAN
		}
	}
	return nil
}

// rspan checks a target that is a VLAN and counts it.
func (c *checker) rspan(at pointer, t *MirrorTarget) int {
	if t.RSPAN == nil {
		return 0
	}
	target := at.field("rspan")
	c.within(target, "vlan", int64(t.RSPAN.VLAN), 1, MaxVLAN)
	if !t.RSPAN.AcknowledgeFlooding {
		c.addf(target.field("acknowledgeFlooding"), nil, "must be true: copies flood the whole VLAN, on every switch that has it, and on "+
			"this one to every port without a VLAN of its own")
	}
	return 1
}

// flooding refuses what does not go with copies to a VLAN. Only a Mirror row makes them: flows would have to flood them, on a bridge whose
// flows may be somebody else's.
func (c *checker) flooding(spec pointer, s *MirrorSpec) {
	t := s.Floods()
	if t == nil {
		return
	}
	refuse := func(given bool, path ...any) {
		if given {
			c.addf(spec.path(path...), nil, "does not go with rspan: only a Mirror row of Open vSwitch copies to a VLAN, and that cannot do this; "+
				"deliver to a port or through a tunnel")
		}
	}
	refuse(len(s.Targets) > 1, "targets")
	refuse(s.MixesVLANs(), "sources")
	refuse(s.Filter != nil, "filter")
	refuse(s.Snaplen != 0, "snaplen")
	refuse(s.Sample != nil, "sample")
	refuse(s.VLANTag != "", "vlanTag")
	refuse(s.CapturePoint == CaptureDelivered, "capturePoint")
	refuse(s.StopAfter != nil && s.StopAfter.Packets != 0, "stopAfter", "packets")
	refuse(s.StopAfter != nil && s.StopAfter.Bytes != 0, "stopAfter", "bytes")
	for i := range s.Sources {
		if v := s.Sources[i].VLAN; v != nil && *v == t.VLAN {
			c.add(Fault{Pointer: spec.path("sources", i, "vlan").String(), Value: *v, Code: CodeSourceIsTarget,
				Detail: "is also the target: the mirror would copy its own copies"})
		}
	}
}
