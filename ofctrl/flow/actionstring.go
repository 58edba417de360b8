package flow

// String returns the action as ovs-ofctl prints it.
func (a Output) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a OutputTrunc) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a OutputReg) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Controller) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Group) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a SetField) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Load) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Move) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Push) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Pop) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a PushVLAN) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a PopVLAN) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a DecTTL) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a SetQueue) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a PopQueue) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Resubmit) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a CT) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a CTClear) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Conjunction) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Clone) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Sample) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a CheckPktLarger) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Note) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a Meter) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a ClearActions) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a WriteActions) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a WriteMetadata) String() string { return string(a.append(nil)) }

// String returns the action as ovs-ofctl prints it.
func (a GotoTable) String() string { return string(a.append(nil)) }
