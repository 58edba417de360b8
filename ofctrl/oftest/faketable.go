package oftest

import (
	"bytes"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// fakeTable holds flows in their wire form by table, priority and match, so that it keeps whatever a client sends.
type fakeTable map[string]fakeFlow

type fakeFlow struct {
	cookie       uint64
	table        uint8
	priority     uint16
	idle, hard   uint16
	flags        uint16
	match        []byte // ofp_match with padding
	instructions []byte
}

// fakeEvent is a change, for flow monitors.
type fakeEvent struct {
	event ofp.FlowEvent
	flow  fakeFlow
}

func (f fakeFlow) key() string {
	return string(append([]byte{f.table, byte(f.priority >> 8), byte(f.priority)}, f.match...))
}

// mod does what the body of a flow-mod says (OpenFlow 1.3.5 §6.4). Of the commands that are not strict it knows those
// that match everything.
func (t fakeTable) mod(body []byte) []fakeEvent {
	mask, command := be.Uint64(body[8:]), ofp.FlowModCommand(body[17])
	matchLen := (int(be.Uint16(body[42:])) + 7) &^ 7
	f := fakeFlow{
		cookie: be.Uint64(body), table: body[16], idle: be.Uint16(body[18:]), hard: be.Uint16(body[20:]),
		priority: be.Uint16(body[22:]), flags: be.Uint16(body[36:]),
		match: bytes.Clone(body[40 : 40+matchLen]), instructions: bytes.Clone(body[40+matchLen:]),
	}
	switch command {
	case ofp.FlowAdd:
		t[f.key()] = f
		return []fakeEvent{{ofp.FlowAddedEvent, f}}
	case ofp.FlowModifyStrict, ofp.FlowDeleteStrict:
		old, ok := t[f.key()]
		if !ok || (old.cookie^f.cookie)&mask != 0 {
			return nil
		}
		if command == ofp.FlowDeleteStrict {
			delete(t, f.key())
			return []fakeEvent{{ofp.FlowRemovedEvent, old}}
		}
		old.instructions = f.instructions
		t[f.key()] = old
		return []fakeEvent{{ofp.FlowModifiedEvent, old}}
	}
	var events []fakeEvent
	for k, old := range t {
		if (old.cookie^f.cookie)&mask != 0 || f.table != ofp.AllTables && f.table != old.table {
			continue
		}
		if command == ofp.FlowDelete {
			delete(t, k)
			events = append(events, fakeEvent{ofp.FlowRemovedEvent, old})
			continue
		}
		old.instructions = f.instructions
		t[k] = old
		events = append(events, fakeEvent{ofp.FlowModifiedEvent, old})
	}
	return events
}

// stats returns the parts of a flow statistics reply, each of moderate size.
func (t fakeTable) stats(xid uint32) [][]byte {
	var parts [][]byte
	head := func(more byte) []byte { return []byte{0, byte(ofp.MultipartFlow), 0, more, 0, 0, 0, 0} }
	b := head(0)
	for _, f := range t {
		if len(b) > 30000 {
			b[3] = 1
			parts = append(parts, message(ofp.TypeMultipartReply, xid, b))
			b = head(0)
		}
		b = be.AppendUint16(b, uint16(48+len(f.match)+len(f.instructions)))
		b = append(b, f.table, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		b = be.AppendUint16(be.AppendUint16(be.AppendUint16(b, f.priority), f.idle), f.hard)
		b = append(be.AppendUint16(b, f.flags), 0, 0, 0, 0)
		b = append(be.AppendUint64(b, f.cookie), make([]byte, 16)...)
		b = append(append(b, f.match...), f.instructions...)
	}
	return append(parts, message(ofp.TypeMultipartReply, xid, b))
}

// encode returns the report of a flow monitor, without actions.
func (e fakeEvent) encode() []byte {
	f := e.flow
	b := be.AppendUint16(monitorHead(), uint16(24+len(f.match)))
	b = be.AppendUint16(be.AppendUint16(b, uint16(e.event)), uint16(ofp.RemovedDelete))
	b = be.AppendUint16(be.AppendUint16(be.AppendUint16(b, f.priority), f.idle), f.hard)
	b = append(be.AppendUint16(b, uint16(len(f.match))), f.table, 0)
	return message(ofp.TypeMultipartReply, 0, append(be.AppendUint64(b, f.cookie), f.match...))
}
