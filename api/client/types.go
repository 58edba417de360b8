package client

import (
	"encoding/json"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// Document is a resource with what was observed of it. Spec is left as the server wrote it.
type Document struct {
	Kind      policy.Kind       `json:"kind"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	UID       string            `json:"uid,omitempty"`
	Revision  int64             `json:"revision,omitempty"`
	CreatedAt time.Time         `json:"createdAt,omitzero"`
	Spec      json.RawMessage   `json:"spec"`
	Status    policy.Status     `json:"status"`
}

// ApplyResult says what an apply did, or would do.
type ApplyResult struct {
	DryRun    bool             `json:"dryRun"`
	Created   []ApplyItem      `json:"created"`
	Updated   []ApplyItem      `json:"updated"`
	Unchanged []ApplyItem      `json:"unchanged"`
	Deleted   []ApplyItem      `json:"deleted"`
	Warnings  []policy.Warning `json:"warnings,omitempty"`
	Plan      *Plan            `json:"plan,omitempty"`
}

// ApplyItem is one resource of an ApplyResult.
type ApplyItem struct {
	Kind     policy.Kind    `json:"kind"`
	Name     string         `json:"name"`
	Revision int64          `json:"revision,omitempty"`
	Changes  []FieldChange  `json:"changes,omitempty"`
	Status   *policy.Status `json:"status,omitempty"`
}

// FieldChange is one difference between two versions of a document.
type FieldChange struct {
	Pointer string `json:"pointer"`
	Old     any    `json:"old,omitempty"`
	New     any    `json:"new,omitempty"`
}

// Plan says what a change would do on the switches.
type Plan struct {
	Bridges  []BridgePlan     `json:"bridges"`
	Warnings []policy.Warning `json:"warnings,omitempty"`
}

// BridgePlan is the part of one bridge.
type BridgePlan struct {
	Host          string   `json:"host"`
	Bridge        string   `json:"bridge"`
	AddFlows      []string `json:"addFlows,omitempty"`
	RemoveFlows   []string `json:"removeFlows,omitempty"`
	AddMirrors    []string `json:"addMirrors,omitempty"`
	RemoveMirrors []string `json:"removeMirrors,omitempty"`
	RejudgedRules []string `json:"rejudgedRules,omitempty"`
}

// Flow is one flow, desired or installed.
type Flow struct {
	Host    string `json:"host"`
	Bridge  string `json:"bridge"`
	Owner   string `json:"owner"`
	State   string `json:"state"` // installed | missing | foreign
	Flow    string `json:"flow"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// System is the health of the server.
type System struct {
	Version  string         `json:"version"`
	Healthy  bool           `json:"healthy"`
	Problems []string       `json:"problems,omitempty"`
	Store    StoreHealth    `json:"store"`
	Hosts    []HostHealth   `json:"hosts"`
	Events   event.Counters `json:"events"`
}

// StoreHealth is that of the store.
type StoreHealth struct {
	Kind      string `json:"kind"`
	Connected bool   `json:"connected"`
	Revision  int64  `json:"revision"`
	Message   string `json:"message,omitempty"`
}

// HostHealth is that of the connections to one host.
type HostHealth struct {
	Host      string         `json:"host"`
	OVSDB     string         `json:"ovsdb"`
	Desired   int64          `json:"desiredRevision"`
	Installed int64          `json:"installedRevision"`
	Bridges   []BridgeHealth `json:"bridges"`
}

// BridgeHealth is that of one OpenFlow connection.
type BridgeHealth struct {
	Bridge         string `json:"bridge"`
	Mode           string `json:"mode"`
	OpenFlow       string `json:"openflow"`
	DesiredFlows   int    `json:"desiredFlows"`
	InstalledFlows int    `json:"installedFlows"`
	FlowMods       uint64 `json:"flowMods"`
	Resyncs        uint64 `json:"resyncs"`
	Pickup         bool   `json:"pickup"`
	Message        string `json:"message,omitempty"`
}

// Host is one Open vSwitch.
type Host struct {
	ID         string   `json:"id"`
	OVSVersion string   `json:"ovsVersion"`
	Connected  bool     `json:"connected"`
	Message    string   `json:"message,omitempty"`
	Bridges    []Bridge `json:"bridges"`
}

// Bridge is one bridge of a host; Mode is "" for bridges that tapwall leaves alone.
type Bridge struct {
	Name         string   `json:"name"`
	Mode         string   `json:"mode,omitempty"`
	DatapathType string   `json:"datapathType"`
	FailMode     string   `json:"failMode"`
	Connected    bool     `json:"connected"`
	Message      string   `json:"message,omitempty"`
	Ports        []Port   `json:"ports"`
	Mirrors      []Mirror `json:"mirrors,omitempty"`
}

// Port is one port of a bridge.
type Port struct {
	Name     string `json:"name"`
	OFPort   int64  `json:"ofport"`
	Type     string `json:"type,omitempty"`
	VLAN     *int   `json:"vlan,omitempty"`
	MAC      string `json:"mac,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Mirror is one mirror row; Owner is "" if it is not tapwall's.
type Mirror struct {
	Name   string `json:"name"`
	Owner  string `json:"owner,omitempty"`
	Output string `json:"output,omitempty"`
}

// Workload is a discovered endpoint.
type Workload struct {
	Key       string           `json:"key"`
	Remote    bool             `json:"remote,omitempty"`
	Bridge    string           `json:"bridge,omitempty"`
	Port      string           `json:"port,omitempty"`
	OFPort    uint32           `json:"ofport,omitempty"`
	MAC       string           `json:"mac,omitempty"`
	VLAN      int              `json:"vlan,omitempty"`
	Endpoint  string           `json:"endpoint,omitempty"`
	Labels    map[string]Label `json:"labels"`
	Addresses []string         `json:"addresses,omitempty"`
}

// Label is a label's value and where it came from.
type Label struct {
	Value string `json:"value"`
	From  string `json:"from"`
}
