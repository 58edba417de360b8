package wire

import (
	"time"

	"github.com/tapwall/tapwall/policy"
)

// Confirmation is an apply that is undone unless it is confirmed in time.
type Confirmation struct {
	ID    string    `json:"id"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Changes are what it changed.
	Changes []ConfirmationChange `json:"changes"`
	// Problem is why it could not be undone although its time is up; it is tried again.
	Problem string `json:"problem,omitempty"`
}

// ConfirmationChange is one resource of a Confirmation.
type ConfirmationChange struct {
	Kind   policy.Kind `json:"kind"`
	Name   string      `json:"name"`
	Change string      `json:"change"` // created | updated | deleted
}

// Undone says what undoing an apply did.
type Undone struct {
	// Restored are the resources that are again what they were before.
	Restored []ConfirmationChange `json:"restored"`
	// Left are those that were left alone: somebody has changed them since, or others refer to them now.
	Left []ConfirmationChange `json:"left"`
}
