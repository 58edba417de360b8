package tap

import (
	"slices"
	"strconv"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// capturePrefix begins the names of the ports that this host reads itself.
const capturePrefix = "twc-"

// Capture is a target that this host reads itself: an internal port of the tap bridge, and what becomes of the packets that come there.
type Capture struct {
	Port   string
	Target int // index
	// At most one of these is set; none is of Info.Readable.
	Pcap   *policy.PcapTarget
	Buffer *policy.BufferTarget
	Events *policy.EventsTarget

	// Direction is the mirror's, and Sources are the ports that it copies.
	Direction string
	Sources   []CaptureSource
}

// CaptureSource is a port whose packets are captured.
type CaptureSource struct {
	Bridge, Port string
	MACs         []string // of what is plugged in there, as far as they are known
}

// Kind says in one word what becomes of the packets; "" = nothing that this host does.
func (c *Capture) Kind() string {
	switch {
	case c.Pcap != nil:
		return "pcap"
	case c.Buffer != nil:
		return "buffer"
	case c.Events != nil:
		return "events"
	}
	return ""
}

// CaptureOf returns what this host reads for a target of a mirror, without its sources; nil = it does not.
func CaptureOf(mirror string, i int, t *policy.MirrorTarget) *Capture {
	c := &Capture{Target: i, Pcap: t.Pcap, Buffer: t.Buffer, Events: t.Events}
	kind := c.Kind()
	if kind == "" {
		return nil
	}
	file := ""
	if t.Pcap != nil {
		file = t.Pcap.BaseName()
	}
	c.Port = capturePrefix + hashed(mirror+"\x00"+kind+"\x00"+file, keyBytes)
	return c
}

// reads reports whether this host reads one of the mirror's targets itself.
func reads(m *policy.Mirror) bool {
	return slices.ContainsFunc(m.Spec.Targets, func(t policy.MirrorTarget) bool { return CaptureOf(m.Name, 0, &t) != nil })
}

// captured is the target of a port that this host reads.
func (w *mirrorWork) captured(c *Capture) mirrorTarget {
	if w.in.NoDevices {
		w.problem(true, policy.ReasonNoLocalDevices, "host %s is managed over the network and lacks the capability localDevices, so its packets "+
			"cannot be read here; use a target of another kind there, such as a tunnel", w.in.Topology.Host)
	}
	return mirrorTarget{spec: vswitch.OutputSpec{Port: c.Port, Create: true, Type: "internal"}, identity: output{port: c.Port}, capture: c}
}

// takeFile takes the name of a target's files, which no other mirror may have.
func (w *mirrorWork) takeFile(t mirrorTarget) {
	if t.capture == nil || t.capture.Pcap == nil {
		return
	}
	name := t.capture.Pcap.BaseName()
	if by, taken := w.files[name]; taken {
		w.problem(true, policy.ReasonOutputShared, "mirror %s writes files of the name %s already; choose another one", by, name)
		return
	}
	w.files[name] = w.m.Name
}

// read notes the ports of our own that copies arrive at, and which of them this host reads.
func (w *mirrorWork) read(on []*vswitch.Bridge, sources map[string]*bridgeSources, targets []mirrorTarget) {
	var from []CaptureSource
	for _, b := range on {
		for _, name := range sources[b.Name].ports {
			s := CaptureSource{Bridge: b.Name, Port: name}
			if wl := w.port(b, name).Workload; wl != nil && wl.MAC != "" {
				s.MACs = append([]string{wl.MAC}, wl.MACs...)
			}
			from = append(from, s)
		}
	}
	for i, t := range targets {
		c := Capture{Port: t.spec.Port, Target: i}
		switch {
		case t.capture != nil:
			c = *t.capture
		case !t.spec.Create || t.spec.Type != "internal":
			continue
		}
		c.Direction, c.Sources = w.m.Spec.Direction, from
		w.info.Readable = append(w.info.Readable, c)
		if t.capture != nil {
			w.info.Captures = append(w.info.Captures, c)
		}
	}
}

// describe adds to the description of the target.
func (c *Capture) describe(out map[string]string) {
	switch {
	case c.Pcap != nil:
		rotate, keep := c.Pcap.Limits()
		out["pcap"] = c.Pcap.BaseName()
		out["rotate"], out["keep"] = strconv.FormatInt(rotate, 10), strconv.Itoa(keep)
	case c.Buffer != nil:
		age, size := c.Buffer.Limits()
		out["buffer"] = strconv.FormatInt(size, 10)
		if age > 0 {
			out["duration"] = age.String()
		}
	case c.Events != nil:
		out["events"] = "1/" + strconv.Itoa(c.Events.OneOf())
	}
}
