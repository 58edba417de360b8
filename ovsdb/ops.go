package ovsdb

import (
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// The operations are written out by hand instead of by the library's model functions: those find rows by conditions that may scan
// a table, and build whole sets where one element is meant. Every row is addressed by _uuid.

func byUUID(uuid string) []ovsdb.Condition {
	return []ovsdb.Condition{{Column: "_uuid", Function: ovsdb.ConditionEqual, Value: ovsdb.UUID{GoUUID: uuid}}}
}

func set[T any](values []T) ovsdb.OvsSet {
	s := ovsdb.OvsSet{GoSet: make([]any, 0, len(values))}
	for _, v := range values {
		s.GoSet = append(s.GoSet, v)
	}
	return s
}

// uuids makes a set of row references; an element that is no UUID is a name given by an insert of the same transaction.
func uuids(refs ...string) ovsdb.OvsSet {
	s := ovsdb.OvsSet{GoSet: make([]any, 0, len(refs))}
	for _, r := range refs {
		s.GoSet = append(s.GoSet, ovsdb.UUID{GoUUID: r})
	}
	return s
}

func optional[T any](p *T) ovsdb.OvsSet {
	if p == nil {
		return set[T](nil)
	}
	return set([]T{*p})
}

func stringMap(m map[string]string) ovsdb.OvsMap {
	out := ovsdb.OvsMap{GoMap: make(map[any]any, len(m))}
	for k, v := range m {
		out.GoMap[k] = v
	}
	return out
}

func intMap(m map[string]int) ovsdb.OvsMap {
	out := ovsdb.OvsMap{GoMap: make(map[any]any, len(m))}
	for k, v := range m {
		out.GoMap[k] = v
	}
	return out
}

func insertOp(table, name string, row ovsdb.Row) ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationInsert, Table: table, UUIDName: name, Row: row}
}

func updateOp(table, uuid string, row ovsdb.Row) ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: table, Where: byUUID(uuid), Row: row}
}

func mutateOp(table, uuid string, mutations ...ovsdb.Mutation) ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationMutate, Table: table, Where: byUUID(uuid), Mutations: mutations}
}

// markOp renews the spec hash of a row and leaves every other key of external_ids alone.
func markOp(table, uuid, hash string) ovsdb.Operation {
	return mutateOp(table, uuid,
		// RFC 7047 §5.1: inserting into a map does not replace a key that exists.
		ovsdb.Mutation{Column: "external_ids", Mutator: ovsdb.MutateOperationDelete, Value: set([]string{vswitch.MarkSpecHash})},
		ovsdb.Mutation{Column: "external_ids", Mutator: ovsdb.MutateOperationInsert,
			Value: stringMap(map[string]string{vswitch.MarkSpecHash: hash})})
}

// waitOp makes the transaction fail unless the column still holds value.
func waitOp(table, uuid, column string, value any) ovsdb.Operation {
	now := 0
	return ovsdb.Operation{
		Op: ovsdb.OperationWait, Table: table, Where: byUUID(uuid), Timeout: &now,
		Columns: []string{column}, Until: string(ovsdb.WaitConditionEqual), Rows: []ovsdb.Row{{column: value}},
	}
}

// cfgOps ask ovs-vswitchd for a confirmation: it copies next_cfg to cur_cfg when it has taken the rows over. The select tells the
// number, which a mutation does not.
func cfgOps(root string) []ovsdb.Operation {
	return []ovsdb.Operation{
		mutateOp(tableRoot, root, ovsdb.Mutation{Column: "next_cfg", Mutator: ovsdb.MutateOperationAdd, Value: 1}),
		{Op: ovsdb.OperationSelect, Table: tableRoot, Where: byUUID(root), Columns: []string{"next_cfg"}},
	}
}

func marks(owner, hash string) ovsdb.OvsMap {
	return stringMap(map[string]string{
		vswitch.MarkOwner:    vswitch.OwnerValue,
		vswitch.MarkMirror:   owner,
		vswitch.MarkSpecHash: hash,
	})
}

// resourceMarks are those of a row that is not a mirror's alone.
func resourceMarks(owner string) map[string]string {
	return map[string]string{vswitch.MarkOwner: vswitch.OwnerValue, vswitch.MarkResource: owner}
}

// mark puts the marks of a row right and leaves what others keep in its external_ids alone.
func (p *planner) mark(table, uuid string, have map[string]string, owner string) {
	if ours(have) && have[vswitch.MarkResource] == owner && have[vswitch.MarkMirror] == "" {
		return
	}
	stale := []string{vswitch.MarkOwner, vswitch.MarkResource, vswitch.MarkMirror, vswitch.MarkSpecHash}
	p.rowOps = append(p.rowOps, mutateOp(table, uuid,
		ovsdb.Mutation{Column: "external_ids", Mutator: ovsdb.MutateOperationDelete, Value: set(stale)},
		ovsdb.Mutation{Column: "external_ids", Mutator: ovsdb.MutateOperationInsert, Value: stringMap(resourceMarks(owner))}))
}

// waitBridge makes the transaction fail unless a set or map of the bridge still holds the rows that were seen.
func waitBridge(b *vswitch.Bridge, column string) ovsdb.Operation {
	var seen []string
	switch column {
	case "ports":
		for _, port := range b.Ports {
			seen = append(seen, port.UUID)
		}
	case "mirrors":
		for _, m := range b.Mirrors {
			seen = append(seen, m.UUID)
		}
	case "controller":
		for _, c := range b.Controllers {
			seen = append(seen, c.UUID)
		}
	case "flow_tables":
		tables := make(map[any]any, len(b.FlowTables))
		for number, row := range b.FlowTables {
			tables[number] = ovsdb.UUID{GoUUID: row.UUID}
		}
		return waitOp(tableBridge, b.UUID, column, ovsdb.OvsMap{GoMap: tables})
	}
	return waitOp(tableBridge, b.UUID, column, uuids(seen...))
}
