package wire

import "github.com/tapwall/tapwall/policy"

// Plan is the answer to a dry run: flows and rows that would be added (+) and removed (-), as ovs-ofctl and ovs-vsctl print them.
type Plan struct {
	Bridges []BridgePlan `json:"bridges"`
	// Connections is what would become of live connections; absent where nothing is changed that decides about them.
	Connections *ConnectionPlan `json:"connections,omitempty"`

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
	// RejudgedRules lists rules whose live connections would be judged again (and cut unless another rule allows them).
	RejudgedRules []string `json:"rejudgedRules,omitempty"`
}

// ApplyResult says what an apply, or the dry run of any write, did or would do. Each list is in the order of the documents, deletions by
// kind and name.
type ApplyResult struct {
	DryRun    bool        `json:"dryRun"`
	Created   []ApplyItem `json:"created"`
	Updated   []ApplyItem `json:"updated"`
	Unchanged []ApplyItem `json:"unchanged"`
	Deleted   []ApplyItem `json:"deleted"`
	// Effects say what the changes do, or would do, to endpoints as a whole: who becomes default-deny, what opens to everybody.
	Effects []policy.Consequence `json:"effects,omitempty"`
	// Warnings are those of the engine about the changed resources.
	Warnings []policy.Warning `json:"warnings,omitempty"`
	// Confirmation is what undoes the changes unless it is confirmed; with confirmWithin only.
	Confirmation *Confirmation `json:"confirmation,omitempty"`
	// Plan is what would happen on the switches; dry runs only.
	Plan *Plan `json:"plan,omitempty"`
}

// ApplyItem is one resource of an ApplyResult.
type ApplyItem struct {
	Kind policy.Kind `json:"kind"`
	Name string      `json:"name"`
	// Revision is the one written; 0 in dry runs and for deletions.
	Revision int64 `json:"revision,omitempty"`
	// Changes are the fields that differ; updates only.
	Changes []FieldChange `json:"changes,omitempty"`
	// Status is what was observed, if the request waited.
	Status *policy.Status `json:"status,omitempty"`
}

// FieldChange is one difference between two versions of a document.
type FieldChange struct {
	// Pointer is the place in the new document, or in the old one if it is gone there (RFC 6901).
	Pointer string `json:"pointer"`
	Old     any    `json:"old,omitempty"`
	New     any    `json:"new,omitempty"`
}
