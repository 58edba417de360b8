package backend

import (
	"fmt"
	"net/netip"
)

// TraceQuestion asks what would happen to the first packet of a connection.
type TraceQuestion struct {
	// From and To are who opens it and to whom: any name that an endpoint goes by, or an address.
	From, To         string
	Host, Bridge     string // where endpoints are looked for; "" = everywhere
	Proto            uint8
	SrcPort, DstPort uint16
	Type, Code       uint8
	SrcIP, DstIP     netip.Addr // invalid = those that From and To say, or the endpoints have
	Family           int        // 4 or 6; 0 = that of the addresses
	VLAN             *int       // nil = that of the endpoints
	Probe            bool       // also ask the switches
}

// QuestionError says which parameter of a question makes no sense, and why.
type QuestionError struct{ Parameter, Detail string }

// Error is the detail.
func (e *QuestionError) Error() string { return e.Detail }

// BadQuestion returns a *QuestionError.
func BadQuestion(parameter, format string, args ...any) error {
	return &QuestionError{parameter, fmt.Sprintf(format, args...)}
}

// Crossing is the part of a TraceQuestion that one bridge answers.
type Crossing struct {
	Bridge   string
	Src, Dst string // keys of endpoints there; "" = none
	// SrcIP and DstIP are of one family.
	SrcIP, DstIP     netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16
	Type, Code       uint8
	VLAN             int
	Probe            bool
}
