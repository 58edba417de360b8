package client

import (
	"encoding/json"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event"
)

// The documents that the server answers with.
type (
	// Document is a resource with what was observed of it. Spec is left as the server wrote it.
	Document           = wire.Document[json.RawMessage]
	ApplyResult        = wire.ApplyResult
	ApplyItem          = wire.ApplyItem
	Members            = wire.Members
	Confirmation       = wire.Confirmation
	ConfirmationChange = wire.ConfirmationChange
	Undone             = wire.Undone
	Flow               = wire.FlowEntry
	System             = wire.SystemStatus
	Host               = wire.Host
	Workload           = wire.Workload
	Class              = wire.Class
	ClassRule          = wire.ClassRule
	FlowName           = wire.FlowName

	Connection     = wire.Connection
	ConnectionEnd  = wire.ConnectionEnd
	Connections    = wire.Connections
	ConnectionRule = wire.ConnectionRule
	Killed         = wire.Killed
	Explanation    = wire.Explanation

	ConnectionPlan    = wire.ConnectionPlan
	PlannedConnection = wire.PlannedConnection

	Finding = wire.Finding

	Capture     = wire.Capture
	CaptureFile = wire.CaptureFile

	Sink         = event.SinkStatus
	ExportTest   = event.ExportTest
	ExportReplay = event.ExportReplay

	Trace         = wire.Trace
	TraceCrossing = wire.TraceCrossing
	TraceSide     = wire.TraceSide
)

// What a host's capabilities may be.
const (
	CapControlSocket  = wire.CapControlSocket
	CapFirstFragments = wire.CapFirstFragments
)
