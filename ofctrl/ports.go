package ofctrl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// Bits of a port's configuration (OpenFlow 1.0 §5.2.1; OFPPC_NO_FWD is in 1.3.5 §7.2.1, too).
const (
	// PortNoFlood keeps a port out of what is flooded. No version after 1.0 can say so; Open vSwitch ignores the bit in their port-mods.
	PortNoFlood uint32 = 1 << 4
	// PortNoForward drops whatever would be sent to a port, by whichever action, also by that of mirrors.
	PortNoForward uint32 = 1 << 5
)

// ConfigurePorts gives the ports their values of the bits of PortNoForward, where they differ, and returns the bits that are set of all
// ports of the bridge, as read afterwards. A port that is not there is left out. Errors are those of EachFlow; a port that the switch
// refuses to configure does not keep it from the others.
func (s *Switch) ConfigurePorts(ctx context.Context, want map[uint32]uint32) (have map[uint32]uint32, err error) {
	conn, err := s.connection()
	if err != nil {
		return nil, err
	}
	ports, err := s.Ports(ctx)
	if err != nil {
		return nil, err
	}
	var mods []ofp.PortMod
	for _, p := range ports {
		if w, ok := want[p.No]; ok && (p.Config^w)&PortNoForward != 0 {
			mods = append(mods, ofp.PortMod{No: p.No, HWAddr: p.HWAddr, Config: w & PortNoForward, Mask: PortNoForward})
		}
	}
	if len(mods) > 0 {
		err = gone(conn.Do(ctx, len(mods), func(dst []byte, xid uint32, i int) ([]byte, error) {
			return ofp.AppendPortMod(dst, xid, &mods[i]), nil
		}, func(i int) Label { return Label{Op: "configure port", Object: fmt.Sprint(mods[i].No)} }))
		if errors.Is(err, ErrNotConnected) || ctx.Err() != nil {
			return nil, err
		}
		var again error
		if ports, again = s.Ports(ctx); again != nil {
			return nil, again
		}
	}
	have = make(map[uint32]uint32, len(ports))
	for _, p := range ports {
		have[p.No] = p.Config & PortNoForward
	}
	return have, err
}

// ErrNoOpenFlow10 is returned by FloodPorts where the bridge does not speak OpenFlow 1.0.
var ErrNoOpenFlow10 = errors.New("the bridge does not speak OpenFlow 1.0, by which alone ports are kept out of floods")

// FloodPorts is ConfigurePorts for the bit PortNoFlood. It makes a connection of its own, as only OpenFlow 1.0 has that bit. Ports whose
// number is above 0xff00 are left out.
func (s *Switch) FloodPorts(ctx context.Context, want map[uint32]uint32) (have map[uint32]uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	nc, err := dial(ctx, s.opts.Address, s.opts.TLS)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Now()) })
	defer stop()
	defer func() {
		// A switch that speaks no such version hangs up, before or behind its error message.
		if err != nil && ctx.Err() == nil && (errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)) {
			err = fmt.Errorf("%w (%w)", ErrNoOpenFlow10, err)
		}
	}()
	c := &conn10{rw: nc}
	if err := c.send(typeHello10, nil); err != nil {
		return nil, err
	}
	ports, err := c.features()
	if err != nil {
		return nil, err
	}
	changed := false
	for _, p := range ports {
		w, ok := want[uint32(p.no)]
		if !ok || (p.config^w)&PortNoFlood == 0 {
			continue
		}
		changed = true
		body := binary.BigEndian.AppendUint16(nil, p.no)
		body = append(body, p.hwAddr[:]...)
		body = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(body, w&PortNoFlood), PortNoFlood)
		if err := c.send(typePortMod10, append(body, 0, 0, 0, 0, 0, 0, 0, 0)); err != nil {
			return nil, err
		}
	}
	if changed {
		if ports, err = c.features(); err != nil { // served in order, so it says what became of the port-mods
			return nil, err
		}
	}
	have = make(map[uint32]uint32, len(ports))
	for _, p := range ports {
		have[uint32(p.no)] = p.config & PortNoFlood
	}
	return have, nil
}

// Messages of OpenFlow 1.0 (§5.1).
const (
	version10       = 1
	typeHello10     = 0
	typeError10     = 1
	typeEcho10      = 2
	typeEchoReply10 = 3
	typeFeatures10  = 5
	typeFeaturesRe  = 6
	typePortMod10   = 15
	portLen10       = 48
)

// conn10 speaks as much of OpenFlow 1.0 as FloodPorts needs.
type conn10 struct {
	rw  io.ReadWriter
	xid uint32
}

func (c *conn10) send(kind uint8, body []byte) error {
	c.xid++
	return c.write(kind, c.xid, body)
}

func (c *conn10) write(kind uint8, xid uint32, body []byte) error {
	b := binary.BigEndian.AppendUint16([]byte{version10, kind}, uint16(8+len(body)))
	_, err := c.rw.Write(append(binary.BigEndian.AppendUint32(b, xid), body...))
	return err
}

type port10 struct {
	no     uint16
	hwAddr [6]byte
	config uint32
}

// features asks for the ports (§5.3.1), past whatever comes before the answer.
func (c *conn10) features() ([]port10, error) {
	if err := c.send(typeFeatures10, nil); err != nil {
		return nil, err
	}
	asked := c.xid
	for {
		var head [8]byte
		if _, err := io.ReadFull(c.rw, head[:]); err != nil {
			return nil, err
		}
		kind, n, xid := head[1], int(binary.BigEndian.Uint16(head[2:])), binary.BigEndian.Uint32(head[4:])
		if n < len(head) {
			return nil, fmt.Errorf("message of %d bytes: %w", n, ErrProtocol)
		}
		body := make([]byte, n-len(head))
		if _, err := io.ReadFull(c.rw, body); err != nil {
			return nil, err
		}
		switch {
		case kind == typeHello10:
		case head[0] != version10:
			return nil, ErrNoOpenFlow10
		case kind == typeError10:
			if len(body) >= 2 && binary.BigEndian.Uint16(body) == 0 { // OFPET_HELLO_FAILED
				return nil, ErrNoOpenFlow10
			}
			// A port-mod that was refused shows in what is read.
		case kind == typeEcho10:
			if err := c.write(typeEchoReply10, xid, body); err != nil {
				return nil, err
			}
		case kind == typeFeaturesRe && xid == asked && len(body) >= 24:
			var out []port10
			for b := body[24:]; len(b) >= portLen10; b = b[portLen10:] {
				out = append(out, port10{no: binary.BigEndian.Uint16(b), hwAddr: [6]byte(b[2:8]), config: binary.BigEndian.Uint32(b[24:])})
			}
			return out, nil
		}
	}
}
