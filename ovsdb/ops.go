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
		ovsdb.Mutation{Column: "external_ids", Mutator: ovsdb.MutateOperationInsert, Value: stringMap(map[string]string{vswitch.MarkSpecHash: hash})})
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
