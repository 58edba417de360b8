package ofp

import (
	"fmt"
	"slices"
	"strings"
)

// ErrorType is the class of an error message (§7.4.4).
type ErrorType uint16

// The error types of OpenFlow 1.3.
const (
	ErrorHelloFailed ErrorType = iota
	ErrorBadRequest
	ErrorBadAction
	ErrorBadInstruction
	ErrorBadMatch
	ErrorFlowModFailed
	ErrorGroupModFailed
	ErrorPortModFailed
	ErrorTableModFailed
	ErrorQueueOpFailed
	ErrorSwitchConfigFailed
	ErrorRoleRequestFailed
	ErrorMeterModFailed
	ErrorTableFeaturesFailed
	ErrorExperimenter ErrorType = 0xffff
)

// String returns the name of the specification, such as OFPET_FLOW_MOD_FAILED.
func (t ErrorType) String() string {
	if t == ErrorExperimenter {
		return "OFPET_EXPERIMENTER"
	}
	return name([]string{
		"OFPET_HELLO_FAILED", "OFPET_BAD_REQUEST", "OFPET_BAD_ACTION", "OFPET_BAD_INSTRUCTION", "OFPET_BAD_MATCH",
		"OFPET_FLOW_MOD_FAILED", "OFPET_GROUP_MOD_FAILED", "OFPET_PORT_MOD_FAILED", "OFPET_TABLE_MOD_FAILED",
		"OFPET_QUEUE_OP_FAILED", "OFPET_SWITCH_CONFIG_FAILED", "OFPET_ROLE_REQUEST_FAILED", "OFPET_METER_MOD_FAILED",
		"OFPET_TABLE_FEATURES_FAILED",
	}, "OFPET", t)
}

// ErrorCode is the vendor, type and code of an error message in one comparable value; see [NewErrorCode]. *[Error] matches
// its code in errors.Is, so that errors.Is(err, ofp.TableFull) works.
type ErrorCode uint64

// NewErrorCode returns the code of a standard error, for vendor 0, or of a vendor's.
func NewErrorCode(vendor uint32, t ErrorType, code uint16) ErrorCode {
	if vendor != 0 {
		t = ErrorExperimenter
	}
	return ErrorCode(vendor)<<32 | ErrorCode(t)<<16 | ErrorCode(code)
}

const (
	onfCode ErrorCode = ErrorCode(VendorONF)<<32 | 0xffff<<16
	nxCode  ErrorCode = ErrorCode(VendorNicira)<<32 | 0xffff<<16
)

// Error codes that callers act on. All others have a name too, but no constant.
const (
	IsSecondary   ErrorCode = 1<<16 | 10 // OFPBRC_IS_SECONDARY
	BadOutGroup   ErrorCode = 2<<16 | 9
	TableFull     ErrorCode = 5<<16 | 1
	FlowOverlap   ErrorCode = 5<<16 | 3
	GroupExists   ErrorCode = 6 << 16
	UnknownGroup  ErrorCode = 6<<16 | 8
	MeterExists   ErrorCode = 12<<16 | 1
	UnknownMeter  ErrorCode = 12<<16 | 3
	OutOfMeters   ErrorCode = 12<<16 | 10
	BundleBadID   ErrorCode = onfCode | 2302 // OFPBFC_BAD_ID: opened twice or never
	BundleExists  ErrorCode = onfCode | 2303
	BundleClosed  ErrorCode = onfCode | 2304
	BundleBadXID  ErrorCode = onfCode | 2309
	BundleUnsup   ErrorCode = onfCode | 2310
	BundleFailed  ErrorCode = onfCode | 2313 // commit failed; the message at fault has an error of its own before this one
	BundleTimeout ErrorCode = onfCode | 2314 // idle for 10 s: the bundle is gone
	ResumeStale   ErrorCode = nxCode | 35
)

// Vendor returns the vendor, 0 for a standard error.
func (c ErrorCode) Vendor() uint32 { return uint32(c >> 32) }

// Type returns the type.
func (c ErrorCode) Type() ErrorType { return ErrorType(c >> 16) }

// Code returns the number within the type and vendor.
func (c ErrorCode) Code() uint16 { return uint16(c) }

// Error makes a code an error, so that it can be the target of errors.Is.
func (c ErrorCode) Error() string { return c.String() }

// String returns the name that Open vSwitch prints, such as OFPFMFC_TABLE_FULL.
func (c ErrorCode) String() string {
	i, ok := slices.BinarySearchFunc(errorNames, c, func(e errorName, c ErrorCode) int {
		switch {
		case e.code < c:
			return -1
		case e.code > c:
			return 1
		}
		return 0
	})
	switch {
	case ok:
		return errorNames[i].name
	case c.Vendor() == VendorONF:
		return fmt.Sprintf("ONF error %d", c.Code())
	case c.Vendor() == VendorNicira:
		return fmt.Sprintf("Nicira error %d", c.Code())
	case c.Vendor() != 0:
		return fmt.Sprintf("error %d of vendor %#x", c.Code(), c.Vendor())
	}
	return fmt.Sprintf("%v code %d", c.Type(), c.Code())
}

// Is makes errors.Is(err, code) work.
func (e *Error) Is(target error) bool {
	c, ok := target.(ErrorCode)
	return ok && c == e.Code
}

// Error names the error, the request that caused it and its transaction id.
func (e *Error) Error() string {
	var s strings.Builder
	s.WriteString(e.Code.String())
	if e.Code.Type() == ErrorHelloFailed && e.Code.Vendor() == 0 {
		if t := strings.TrimRight(string(e.Data), "\x00"); t != "" {
			fmt.Fprintf(&s, ": %q", t)
		}
		return s.String()
	}
	if h, err := ParseHeader(e.Data); err == nil {
		fmt.Fprintf(&s, " in reply to %v", h.Type)
	}
	fmt.Fprintf(&s, " (xid %#x)", e.XID)
	return s.String()
}

// Request returns the header of the request that failed, as far as the switch sent it back.
func (e *Error) Request() (Header, bool) {
	if e.Code.Type() == ErrorHelloFailed && e.Code.Vendor() == 0 {
		return Header{}, false
	}
	h, err := ParseHeader(e.Data)
	return h, err == nil
}

type errorName struct {
	code ErrorCode
	name string
}
