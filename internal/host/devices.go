package host

import (
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/policy"
)

// devices is what is known of the network devices of a local host, by name, as far as it matters where mirrors deliver to ports that are
// there already; the zero value = nothing.
type devices struct {
	addressed map[string]bool // they have an address of the host's, loopback and link-local ones aside
	hardware  map[string]bool // they are network cards
}

func (d devices) equal(o devices) bool {
	return maps.Equal(d.addressed, o.addressed) && maps.Equal(d.hardware, o.hardware)
}

// devicesAge is how old the loop's knowledge of devices may be when something else has changed.
const devicesAge = time.Second

// readDevices reads them, if a mirror asks. It may be called from any goroutine; what cannot be read is not known.
func (e *Engine) readDevices(mirrors []*policy.Mirror) (d devices) {
	if !e.local() || !slices.ContainsFunc(mirrors, hasTargetThere) {
		return d
	}
	all, err := net.Interfaces()
	if err != nil {
		return d
	}
	d = devices{map[string]bool{}, map[string]bool{}}
	with := addressedDevices()
	for i := range all {
		name := all[i].Name
		if with[all[i].Index] {
			d.addressed[name] = true
		}
		// Of a card, and of what a hypervisor makes look like one, the kernel names the device on a bus.
		if _, err := os.Stat(filepath.Join("/sys/class/net", name, "device")); err == nil {
			d.hardware[name] = true
		}
	}
	return d
}

// hasTargetThere reports whether a mirror delivers to what is there without it.
func hasTargetThere(m *policy.Mirror) bool {
	return slices.ContainsFunc(m.Spec.Targets, policy.MirrorTarget.There)
}

// addressedDevices are the indices of devices with an address that others may send to. The kernel is asked once for all of them.
func addressedDevices() map[int]bool {
	out := map[int]bool{}
	answer, err := syscall.NetlinkRIB(syscall.RTM_GETADDR, syscall.AF_UNSPEC)
	if err != nil {
		return out
	}
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil {
		return out
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Type != syscall.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			continue
		}
		for _, a := range attrs {
			if a.Attr.Type != unix.IFA_ADDRESS && a.Attr.Type != unix.IFA_LOCAL {
				continue
			}
			if addr, ok := netip.AddrFromSlice(a.Value); ok && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
				out[int(binary.NativeEndian.Uint32(m.Data[4:]))] = true // ifa_index of struct ifaddrmsg
			}
		}
	}
	return out
}
