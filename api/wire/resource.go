// Package wire holds the documents that the REST API and its clients exchange, as values. Resources themselves are package policy's,
// events package event's.
package wire

import "github.com/tapwall/tapwall/policy"

// Document is a resource as the API answers it: what was asked for in Spec, with the defaults written out, and what was observed in Status.
type Document[S any] struct {
	Kind policy.Kind `json:"kind"`
	policy.Meta
	Spec   S             `json:"spec"`
	Status policy.Status `json:"status"`
}

// List is one page of a collection.
type List[T any] struct {
	Items []T `json:"items"`
	// Next is given as ?next= to get the following page; "" = this is the last one.
	Next string `json:"next,omitempty"`
	// Problems name the hosts that the page lacks, and why; of flows those that do not answer, else those that have not been reached since
	// tapwall started.
	Problems []string `json:"problems,omitempty"`
}
