package flow

// Validate reports what a switch speaking OpenFlow 1.3 would refuse about f or keep as something else: a bad match
// ([Match.Validate]), a value wider than its field, instructions out of order, a goto_table that does not go forward.
// The error matches ErrInvalid. What actions ask of the packet (set_field->tcp_dst needs tcp) is left to the switch,
// because earlier actions may change it.
func (f Flow) Validate() error {
	if _, err := f.validateMatch(); err != nil {
		return err
	}
	_, err := f.validateActions()
	return err
}

func (f Flow) validateMatch() (FieldID, error) {
	for _, id := range [...]FieldID{RecircID, DpHash} {
		if _, ok := f.Match.Get(id); ok {
			return id, invalidf("flows that match %s belong to the switch", id)
		}
	}
	return f.Match.validate()
}

func (f Flow) validateActions() (int, error) {
	if i, err := validateActions(f.Actions, inFlow); err != nil {
		return i, err
	}
	for i, a := range f.Actions {
		if g, ok := a.(GotoTable); ok && g.Table <= f.Table {
			return i, invalidf("goto_table:%d from table %d does not go forward", g.Table, f.Table)
		}
	}
	return 0, nil
}

// ValidateActions is what [Flow.Validate] asks of actions outside a flow, such as those of a packet-out or a bucket:
// instructions are refused.
func ValidateActions(actions []Action) error {
	_, err := validateActions(actions, inList)
	return err
}

// place is where a list of actions stands.
type place uint8

const (
	inFlow place = iota // apply-actions and instructions
	inList              // packet-out, bucket, clone, write_actions
	inExec              // ct(exec(…))
)

// maxNesting bounds clone(clone(…)), which neither a switch nor a stack takes without end.
const maxNesting = 16

// validateActions returns the index of what is wrong.
func validateActions(actions []Action, where place) (int, error) {
	return validateNested(actions, where, 0)
}

func validateNested(actions []Action, where place, depth int) (int, error) {
	if depth > maxNesting {
		return 0, invalidf("actions are nested deeper than %d", maxNesting)
	}
	rank, conjunctions, others := -1, 0, 0
	for i, a := range actions {
		r := instructionRank(a)
		switch {
		case r != rankApply && where != inFlow:
			return i, invalidf("%s is an instruction and cannot stand here", a)
		case r < rank || r == rank && r != rankApply:
			return i, invalidf("%s is out of order: meter, actions, clear_actions, write_actions, write_metadata, goto_table, each once", a)
		}
		rank = r
		switch a.(type) {
		case Conjunction:
			conjunctions++
		case Note:
		default:
			others++
		}
		if conjunctions > 0 && others > 0 {
			return i, invalidf("conjunction stands beside other actions")
		}
		if err := validateAction(a, where, depth); err != nil {
			return i, err
		}
	}
	return 0, nil
}

// Ranks of what may stand in Flow.Actions; they rise along the list (OpenFlow 1.3.5 §5.9).
const (
	rankMeter = iota
	rankApply
	rankClear
	rankWrite
	rankMetadata
	rankGoto
)

func instructionRank(a Action) int {
	switch a.(type) {
	case Meter:
		return rankMeter
	case ClearActions:
		return rankClear
	case WriteActions:
		return rankWrite
	case WriteMetadata:
		return rankMetadata
	case GotoTable:
		return rankGoto
	}
	return rankApply
}

func validateAction(a Action, where place, depth int) error {
	if err := validateCTFields(a, where); err != nil {
		return err
	}
	switch a := a.(type) {
	case Output:
		if a.Port != PortController && a.MaxLen != 0 {
			return invalidf("only a copy to CONTROLLER has a max_len")
		}
		return validatePort(a.Port)
	case OutputTrunc:
		if a.MaxLen < 14 { // an Ethernet header
			return invalidf("%s: max_len must be 14 or more", a)
		}
		if a.Port > 0xfeff && a.Port != PortLocal && a.Port != PortInPort {
			return invalidf("%s: truncates to numbered ports, LOCAL and IN_PORT only", a)
		}
	case OutputReg:
		return validateSub(a.Src)
	case Controller:
		return nil
	case SetField:
		return a.validate()
	case Load:
		return a.validate()
	case Move:
		return a.validate()
	case Push:
		return validateSub(a.Src)
	case Pop:
		return validateDst(a.Dst)
	case PushVLAN:
		if a.EthType != EthTypeVLAN && a.EthType != EthTypeQinQ {
			return invalidf("%s: not the type of a VLAN tag", a)
		}
	case Resubmit:
		return a.validate()
	case CT:
		return a.validate(depth)
	case Conjunction:
		return a.validate()
	case Clone:
		_, err := validateNested(a.Actions, inList, depth+1)
		return err
	case Sample:
		if a.Probability == 0 || a.Direction > SampleEgress {
			return invalidf("%s: probability must not be 0 and direction at most 2", a)
		}
		if a.SamplingPort != PortAny {
			return validatePort(a.SamplingPort)
		}
	case CheckPktLarger:
		if a.Dst.Bits != 1 {
			return invalidf("%s: the destination must be one bit", a)
		}
		return validateDst(a.Dst)
	case Multipath:
		return a.validate()
	case Note:
		// The switch pads the 10-byte header and the data to a multiple of 8 and reads the padding back as data.
		if len(a.Data)%8 != 6 {
			return invalidf("a note has 6, 14, 22, … bytes, not %d", len(a.Data))
		}
	case WriteActions:
		if len(a.Actions) == 0 {
			return invalidf("write_actions without actions is dropped by the switch")
		}
		_, err := validateNested(a.Actions, inList, depth+1)
		return err
	case WriteMetadata:
		if a.Mask == 0 || a.Value&^a.Mask != 0 {
			return invalidf("%s: value outside the mask, or no mask", a)
		}
	case Group, PopVLAN, DecTTL, SetQueue, PopQueue, CTClear, Meter, ClearActions, GotoTable:
		return nil
	default:
		return invalidf("%T is not an action", a)
	}
	return nil
}

func validatePort(p uint32) error {
	switch {
	case p <= 0xfeff, p >= PortInPort && p <= PortLocal:
		return nil
	}
	return invalidf("%s is not a port to send to", appendPort(nil, p))
}

func validateSub(s SubField) error {
	if !s.valid() {
		return invalidf("%d bits from bit %d are not within %s", s.Bits, s.Ofs, s.Field)
	}
	return nil
}

func validateDst(s SubField) error {
	if err := validateSub(s); err != nil {
		return err
	}
	if !s.Field.Writable() {
		return invalidf("%s is read-only", s.Field)
	}
	return nil
}

func (a SetField) validate() error {
	all := Ones(a.Field.Bits())
	switch {
	case !a.Field.Valid():
		return invalidf("%s is not a field", a.Field)
	case !a.Field.Writable():
		return invalidf("%s is read-only", a.Field)
	case a.Mask.IsZero() || a.Mask != a.Mask.And(all) || a.Value != a.Value.And(a.Mask):
		return invalidf("set_field of %s: value and mask must fit into %d bits and each other", a.Field, a.Field.Bits())
	case a.Mask != all && !a.Field.Maskable():
		return invalidf("%s cannot be masked", a.Field)
	case a.Field == VlanVID && a.Value.Lo&tciPresent == 0:
		return invalidf("set_field of vlan_vid must set the present bit 0x1000")
	}
	if why := Term(a).impossible(); why != "" {
		return invalidf("%s", why)
	}
	return nil
}

func (a Load) validate() error {
	if err := validateDst(a.Dst); err != nil {
		return err
	}
	// NXAST_REG_LOAD holds 64 bits.
	if a.Dst.Bits > 64 || a.Dst.Bits < 64 && a.Value>>a.Dst.Bits != 0 {
		return invalidf("%s: value or destination is too wide", a)
	}
	return nil
}

func (a Move) validate() error {
	if err := validateSub(a.Src); err != nil {
		return err
	}
	if a.Src.Bits != a.Dst.Bits {
		return invalidf("%s: moves %d bits into %d", a, a.Src.Bits, a.Dst.Bits)
	}
	return validateDst(a.Dst)
}

func (a Resubmit) validate() error {
	switch {
	case a.Port == PortInPort && a.Table == NoTable:
		return invalidf("resubmit names neither port nor table")
	case a.CT && a.Table == NoTable:
		return invalidf("resubmit with ct needs a table: without, ovs-ofctl prints no ct")
	case a.Port > 0xfeff && a.Port < PortInPort:
		return invalidf("%s: not a port", a)
	}
	return nil
}

func (a Conjunction) validate() error {
	if a.N < 2 || a.N > 64 || a.Clause < 1 || a.Clause > a.N {
		return invalidf("%s: 2..64 clauses, counted from 1", a)
	}
	return nil
}

func (a CT) validate(depth int) error {
	switch {
	case a.Force && !a.Commit:
		return invalidf("%s: force needs commit", a)
	case a.ZoneSrc != (SubField{}) && (!a.ZoneSrc.valid() || a.ZoneSrc.Bits != 16):
		return invalidf("%s: the zone must be 16 bits of a field", a)
	case a.ZoneSrc != (SubField{}) && a.Zone != 0:
		return invalidf("%s: two zones", a)
	case (a.NAT != nil && (a.NAT.Src || a.NAT.Dst) || len(a.Exec) > 0) && !a.Commit:
		return invalidf("%s: nat with an address and exec need commit", a)
	}
	if a.NAT != nil {
		if err := a.NAT.validate(); err != nil {
			return err
		}
	}
	_, err := validateNested(a.Exec, inExec, depth+1)
	return err
}

// validateCTFields holds the rule that ct_mark and ct_label change in ct(exec(…)), and that nothing else does there.
func validateCTFields(a Action, where place) error {
	var dst FieldID
	switch a := a.(type) {
	case SetField:
		dst = a.Field
	case Load:
		dst = a.Dst.Field
	case Move:
		dst = a.Dst.Field
	case Pop:
		dst = a.Dst.Field
	}
	_, pop := a.(Pop)
	switch isCT := dst == CtMark || dst == CtLabel; {
	case where == inExec && (!isCT || pop):
		return invalidf("%s cannot stand in ct(exec(…)): only changes of ct_mark and ct_label can", a)
	case where != inExec && isCT:
		return invalidf("%s changes only in ct(exec(…))", dst)
	}
	return nil
}

func (n NAT) validate() error {
	plain := n == NAT{}
	switch {
	case plain:
		return nil
	case n.Src == n.Dst:
		return invalidf("nat: one of src and dst")
	case !n.AddrMin.IsValid() && n != NAT{Src: n.Src, Dst: n.Dst}:
		return invalidf("%s: ports and flags need an address", n)
	case n.AddrMin.Zone() != "" || n.AddrMax.Zone() != "":
		return invalidf("%s: addresses have no zone", n)
	case n.AddrMax.IsValid() && (n.AddrMax.Is4() != n.AddrMin.Is4() || !n.AddrMin.Less(n.AddrMax)):
		return invalidf("%s: the second address must be higher, or left out", n)
	case n.PortMax != 0 && n.PortMax <= n.PortMin || n.PortMin == 0 && n.PortMax != 0:
		return invalidf("%s: the second port must be higher, or left out", n)
	case n.Hash && n.Random:
		return invalidf("%s: one of hash and random", n)
	}
	return nil
}
