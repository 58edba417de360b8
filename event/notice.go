package event

import (
	"net/netip"
	"strings"
)

// Notice is something that happened to a switch and is no packet.
type Notice struct {
	Message string `json:"message" es:"text"` // one sentence for people
	Count   int64  `json:"count"`             // of the flows, meters or workloads that it is about
	// Objects are the texts of some of them.
	Objects []string `json:"objects,omitempty"`
	By      string   `json:"by,omitempty"`   // who asked for it, where somebody did
	From    string   `json:"from,omitempty"` // and from where
}

// NewNotice is the event that tells of n, which happened to a bridge of a host; action is one of the constants, such as
// ActionForeignFlows.
func NewNotice(action, host, bridge string, n Notice) Event {
	return Event{
		Event: Meta{
			Kind: "event", Category: []string{"configuration"}, Type: []string{"change"}, Action: action, Dataset: DatasetSwitch, Provider: "switch",
		},
		Observer: &Observer{Name: host},
		User:     userOf(n.By),
		Client:   clientOf(n.From),
		Tapwall:  Tapwall{Bridge: bridge, Notice: &n},
	}
}

// NewChange is the event that tells of n, which happened to resources; action is one of the constants, such as ActionUndone.
func NewChange(action string, n Notice) Event {
	return Event{
		Event: Meta{
			Kind: "event", Category: []string{"configuration"}, Type: []string{"change"}, Action: action, Dataset: DatasetChange, Provider: "api",
		},
		User:    userOf(n.By),
		Client:  clientOf(n.From),
		Tapwall: Tapwall{Notice: &n},
	}
}

// NewAccess is the event that tells of n: somebody was handed what resources hold.
func NewAccess(action string, n Notice) Event {
	e := NewChange(action, n)
	e.Event.Type = []string{"access"}
	return e
}

// NewWrite is the event that tells of n, a resource that was written: one of ActionCreated, ActionUpdated and ActionDeleted.
func NewWrite(action string, n Notice, c Change) Event {
	e := NewChange(action, n)
	switch action {
	case ActionCreated:
		e.Event.Type = []string{"creation"}
	case ActionDeleted:
		e.Event.Type = []string{"deletion"}
	}
	e.Event.Outcome = "success"
	e.Tapwall.Change = &c
	return e
}

// NewRefusal is the event that tells of n: somebody asked for what they may not.
func NewRefusal(action string, n Notice) Event {
	e := NewChange(action, n)
	e.Event.Category, e.Event.Type, e.Event.Outcome = []string{"authentication"}, []string{"info"}, "failure"
	return e
}

// Change is what somebody wrote; which resource that is, and who it was, is in the Notice.
type Change struct {
	Revision int64 `json:"revision,omitempty"` // that was written, or of what was deleted
	// Fields are places in the document that differ from before (RFC 6901), some of them if there are many.
	Fields  []string `json:"fields,omitempty"`
	Request string   `json:"request,omitempty"` // id of the request, as in the log and in its answer
}

// User is ECS user.*: who asked for it.
type User struct {
	Name string `json:"name,omitempty"` // of the process at the other end of the unix socket, or what else is known
	ID   string `json:"id,omitempty"`   // its number on that machine
}

// Client is ECS client.*: where somebody asked from.
type Client struct {
	Address string `json:"address"`              // as in tapwall.notice.from
	IP      string `json:"ip,omitempty" es:"ip"` // address; absent = it was the unix socket
	Port    int    `json:"port,omitempty"`       // of TCP
}

// userOf reads a Notice.By: "root (uid 0)", "uid 4711", or other words; nil = nobody is known.
func userOf(by string) *User {
	if by == "" {
		return nil
	}
	if id, ok := strings.CutPrefix(by, "uid "); ok {
		return &User{ID: id}
	}
	if name, id, ok := strings.Cut(strings.TrimSuffix(by, ")"), " (uid "); ok {
		return &User{Name: name, ID: id}
	}
	return &User{Name: by}
}

// clientOf reads a Notice.From: an address with a port, or other words; nil = nowhere is known.
func clientOf(from string) *Client {
	if from == "" {
		return nil
	}
	c := &Client{Address: from}
	if at, err := netip.ParseAddrPort(from); err == nil {
		c.IP, c.Port = at.Addr().Unmap().WithZone("").String(), int(at.Port())
	}
	return c
}
