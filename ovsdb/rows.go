package ovsdb

import (
	"maps"
	"reflect"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/model"
)

const (
	databaseName = "Open_vSwitch"

	tableRoot       = "Open_vSwitch"
	tableBridge     = "Bridge"
	tablePort       = "Port"
	tableInterface  = "Interface"
	tableMirror     = "Mirror"
	tableController = "Controller"
	tableFlowTable  = "Flow_Table"
	tableDatapath   = "Datapath"
	tableZone       = "CT_Zone"
	tablePolicy     = "CT_Timeout_Policy"
)

// The row types below name the columns that are monitored, and no other: the library refuses to connect when the server's schema
// lacks one of them, and a column that nobody reads costs memory and wake-ups (Interface.statistics would alone be most of the
// traffic). All of them are in every schema since Open vSwitch 2.13.
//
// Each type clones itself because the library's general way is a detour through JSON for every row that changes.

type rootRow struct {
	UUID        string            `ovsdb:"_uuid"`
	Bridges     []string          `ovsdb:"bridges"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
	OtherConfig map[string]string `ovsdb:"other_config"`
	OVSVersion  *string           `ovsdb:"ovs_version"`
	DBVersion   *string           `ovsdb:"db_version"`
	NextCfg     int               `ovsdb:"next_cfg"`
	CurCfg      int               `ovsdb:"cur_cfg"`
	Datapaths   map[string]string `ovsdb:"datapaths"`
	IfaceTypes  []string          `ovsdb:"iface_types"`
}

type bridgeRow struct {
	UUID         string            `ovsdb:"_uuid"`
	Name         string            `ovsdb:"name"`
	DatapathType string            `ovsdb:"datapath_type"`
	DatapathID   *string           `ovsdb:"datapath_id"`
	FailMode     *string           `ovsdb:"fail_mode"`
	Protocols    []string          `ovsdb:"protocols"`
	ExternalIDs  map[string]string `ovsdb:"external_ids"`
	OtherConfig  map[string]string `ovsdb:"other_config"`
	Controller   []string          `ovsdb:"controller"`
	Ports        []string          `ovsdb:"ports"`
	Mirrors      []string          `ovsdb:"mirrors"`
	FlowTables   map[int]string    `ovsdb:"flow_tables"`
	FloodVLANs   []int             `ovsdb:"flood_vlans"`
}

type portRow struct {
	UUID        string            `ovsdb:"_uuid"`
	Name        string            `ovsdb:"name"`
	Tag         *int              `ovsdb:"tag"`
	Trunks      []int             `ovsdb:"trunks"`
	VLANMode    *string           `ovsdb:"vlan_mode"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
	OtherConfig map[string]string `ovsdb:"other_config"`
	Interfaces  []string          `ovsdb:"interfaces"`
}

type interfaceRow struct {
	UUID        string            `ovsdb:"_uuid"`
	Name        string            `ovsdb:"name"`
	Type        string            `ovsdb:"type"`
	OFPort      *int              `ovsdb:"ofport"`
	MACInUse    *string           `ovsdb:"mac_in_use"`
	AdminState  *string           `ovsdb:"admin_state"`
	LinkState   *string           `ovsdb:"link_state"`
	MTU         *int              `ovsdb:"mtu"`
	Error       *string           `ovsdb:"error"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
	Options     map[string]string `ovsdb:"options"`
}

type mirrorRow struct {
	UUID          string            `ovsdb:"_uuid"`
	Name          string            `ovsdb:"name"`
	SelectAll     bool              `ovsdb:"select_all"`
	SelectSrcPort []string          `ovsdb:"select_src_port"`
	SelectDstPort []string          `ovsdb:"select_dst_port"`
	SelectVLAN    []int             `ovsdb:"select_vlan"`
	OutputPort    *string           `ovsdb:"output_port"`
	OutputVLAN    *int              `ovsdb:"output_vlan"`
	Snaplen       *int              `ovsdb:"snaplen"`
	Statistics    map[string]int    `ovsdb:"statistics"`
	ExternalIDs   map[string]string `ovsdb:"external_ids"`
}

type flowTableRow struct {
	UUID        string            `ovsdb:"_uuid"`
	Name        *string           `ovsdb:"name"`
	Prefixes    []string          `ovsdb:"prefixes"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
}

type controllerRow struct {
	UUID        string            `ovsdb:"_uuid"`
	Target      string            `ovsdb:"target"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
}

type datapathRow struct {
	UUID         string            `ovsdb:"_uuid"`
	Zones        map[int]string    `ovsdb:"ct_zones"`
	Capabilities map[string]string `ovsdb:"capabilities"`
	ExternalIDs  map[string]string `ovsdb:"external_ids"`
}

type zoneRow struct {
	UUID        string            `ovsdb:"_uuid"`
	Policy      *string           `ovsdb:"timeout_policy"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
}

type policyRow struct {
	UUID        string            `ovsdb:"_uuid"`
	Timeouts    map[string]int    `ovsdb:"timeouts"`
	ExternalIDs map[string]string `ovsdb:"external_ids"`
}

// rowTypes is a new value for every caller: the library keeps the map.
func rowTypes() map[string]model.Model {
	return map[string]model.Model{
		tableRoot:       &rootRow{},
		tableBridge:     &bridgeRow{},
		tablePort:       &portRow{},
		tableInterface:  &interfaceRow{},
		tableMirror:     &mirrorRow{},
		tableController: &controllerRow{},
		tableFlowTable:  &flowTableRow{},
		tableDatapath:   &datapathRow{},
		tableZone:       &zoneRow{},
		tablePolicy:     &policyRow{},
	}
}

// columns lists the columns of a row type except _uuid, which is implied.
func columns(row model.Model) []string {
	t := reflect.TypeOf(row).Elem()
	var names []string
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("ovsdb"); name != "" && name != "_uuid" {
			names = append(names, name)
		}
	}
	return names
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func (r *rootRow) CloneModel() model.Model {
	c := *r
	c.Bridges = slices.Clone(r.Bridges)
	c.ExternalIDs, c.OtherConfig = maps.Clone(r.ExternalIDs), maps.Clone(r.OtherConfig)
	c.OVSVersion, c.DBVersion = clonePtr(r.OVSVersion), clonePtr(r.DBVersion)
	c.Datapaths = maps.Clone(r.Datapaths)
	c.IfaceTypes = slices.Clone(r.IfaceTypes)
	return &c
}

func (r *bridgeRow) CloneModel() model.Model {
	c := *r
	c.DatapathID, c.FailMode = clonePtr(r.DatapathID), clonePtr(r.FailMode)
	c.Protocols = slices.Clone(r.Protocols)
	c.ExternalIDs, c.OtherConfig = maps.Clone(r.ExternalIDs), maps.Clone(r.OtherConfig)
	c.Controller = slices.Clone(r.Controller)
	c.Ports = slices.Clone(r.Ports)
	c.Mirrors = slices.Clone(r.Mirrors)
	c.FlowTables, c.FloodVLANs = maps.Clone(r.FlowTables), slices.Clone(r.FloodVLANs)
	return &c
}

func (r *portRow) CloneModel() model.Model {
	c := *r
	c.Tag, c.VLANMode = clonePtr(r.Tag), clonePtr(r.VLANMode)
	c.Trunks = slices.Clone(r.Trunks)
	c.ExternalIDs, c.OtherConfig = maps.Clone(r.ExternalIDs), maps.Clone(r.OtherConfig)
	c.Interfaces = slices.Clone(r.Interfaces)
	return &c
}

func (r *interfaceRow) CloneModel() model.Model {
	c := *r
	c.OFPort, c.MTU = clonePtr(r.OFPort), clonePtr(r.MTU)
	c.MACInUse, c.Error = clonePtr(r.MACInUse), clonePtr(r.Error)
	c.AdminState, c.LinkState = clonePtr(r.AdminState), clonePtr(r.LinkState)
	c.ExternalIDs, c.Options = maps.Clone(r.ExternalIDs), maps.Clone(r.Options)
	return &c
}

func (r *mirrorRow) CloneModel() model.Model {
	c := *r
	c.SelectSrcPort, c.SelectDstPort = slices.Clone(r.SelectSrcPort), slices.Clone(r.SelectDstPort)
	c.SelectVLAN = slices.Clone(r.SelectVLAN)
	c.OutputPort, c.OutputVLAN, c.Snaplen = clonePtr(r.OutputPort), clonePtr(r.OutputVLAN), clonePtr(r.Snaplen)
	c.Statistics, c.ExternalIDs = maps.Clone(r.Statistics), maps.Clone(r.ExternalIDs)
	return &c
}

func (r *flowTableRow) CloneModel() model.Model {
	c := *r
	c.Name, c.Prefixes, c.ExternalIDs = clonePtr(r.Name), slices.Clone(r.Prefixes), maps.Clone(r.ExternalIDs)
	return &c
}

func (r *controllerRow) CloneModel() model.Model {
	c := *r
	c.ExternalIDs = maps.Clone(r.ExternalIDs)
	return &c
}

func (r *datapathRow) CloneModel() model.Model {
	c := *r
	c.Zones, c.Capabilities, c.ExternalIDs = maps.Clone(r.Zones), maps.Clone(r.Capabilities), maps.Clone(r.ExternalIDs)
	return &c
}

func (r *zoneRow) CloneModel() model.Model {
	c := *r
	c.Policy, c.ExternalIDs = clonePtr(r.Policy), maps.Clone(r.ExternalIDs)
	return &c
}

func (r *policyRow) CloneModel() model.Model {
	c := *r
	c.Timeouts, c.ExternalIDs = maps.Clone(r.Timeouts), maps.Clone(r.ExternalIDs)
	return &c
}

func (r *rootRow) CloneModelInto(m model.Model)   { *m.(*rootRow) = *r.CloneModel().(*rootRow) }
func (r *bridgeRow) CloneModelInto(m model.Model) { *m.(*bridgeRow) = *r.CloneModel().(*bridgeRow) }
func (r *portRow) CloneModelInto(m model.Model)   { *m.(*portRow) = *r.CloneModel().(*portRow) }
func (r *interfaceRow) CloneModelInto(m model.Model) {
	*m.(*interfaceRow) = *r.CloneModel().(*interfaceRow)
}
func (r *mirrorRow) CloneModelInto(m model.Model) { *m.(*mirrorRow) = *r.CloneModel().(*mirrorRow) }
func (r *flowTableRow) CloneModelInto(m model.Model) {
	*m.(*flowTableRow) = *r.CloneModel().(*flowTableRow)
}
func (r *controllerRow) CloneModelInto(m model.Model) {
	*m.(*controllerRow) = *r.CloneModel().(*controllerRow)
}
func (r *datapathRow) CloneModelInto(m model.Model) {
	*m.(*datapathRow) = *r.CloneModel().(*datapathRow)
}
func (r *zoneRow) CloneModelInto(m model.Model)   { *m.(*zoneRow) = *r.CloneModel().(*zoneRow) }
func (r *policyRow) CloneModelInto(m model.Model) { *m.(*policyRow) = *r.CloneModel().(*policyRow) }
