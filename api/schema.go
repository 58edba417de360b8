package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// Patterns of the description. They are documentation: package policy, whose messages are better, checks the values, and a test holds
// the two together.
const (
	dnsLabel   = `^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
	macAddress = `^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$`
	deviceName = `^[A-Za-z0-9_.][-A-Za-z0-9_.]{0,14}$`
	etagList   = `^(\*|` + revisionText + `( *, *` + revisionText + `)*)$`
	pageToken  = `^([-_A-Za-z0-9]{4})*([-_A-Za-z0-9]{2,3})?$`
)

// portRange is the pattern of ports: numbers, ranges and the names that there are.
var portRange = `^([1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?|` + strings.Join(slices.Sorted(maps.Keys(policy.PortNames())), "|") + `)$`

// protocol is the schema of an IP protocol.
func protocol() *huma.Schema {
	lo, hi := span(1, 255)
	names := policy.ProtocolNames()
	return &huma.Schema{OneOf: []*huma.Schema{
		{Type: huma.TypeString, Pattern: `^([1-9][0-9]{0,2}|` + strings.Join(names, "|") + `)$`},
		{Type: huma.TypeInteger, Minimum: lo, Maximum: hi},
	}}
}

// ruleLog is the schema of what a rule says of the record.
func ruleLog() *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeBoolean}, refTo("RuleLog")}}
}

// vlanTag is the schema of what becomes of a VLAN tag.
func vlanTag() *huma.Schema {
	lo, hi := span(1, 4094)
	return &huma.Schema{OneOf: []*huma.Schema{
		{Type: huma.TypeString, Pattern: `^(keep|strip|[1-9][0-9]{0,3})$`},
		{Type: huma.TypeInteger, Minimum: lo, Maximum: hi},
	}}
}

// revisionText is one revision in If-Match, as an ETag or bare.
const revisionText = `("[0-9]{1,18}"|[0-9]{1,18})`

func refTo(name string) *huma.Schema {
	return &huma.Schema{Ref: "#/components/schemas/" + name}
}

// named gives a schema a name of its own, since generators make types of named ones only.
func (d describer) named(name string, s *huma.Schema) *huma.Schema {
	d.schemas.Map()[name] = s
	return refTo(name)
}

// requestSchema is what PUT takes: the name comes from the path, and what only the server writes may be there but is ignored.
func requestSchema[S any](d describer, kind policy.Kind) *huma.Schema {
	ignored := "Ignored in requests"
	return d.named(string(kind)+"Request", &huma.Schema{Type: huma.TypeObject, Required: []string{"spec"}, AdditionalProperties: false,
		Properties: map[string]*huma.Schema{
			"kind":      {Type: huma.TypeString, Enum: []any{string(kind)}},
			"name":      {Type: huma.TypeString, Description: "As in the path, or a 422; may be left out", Pattern: dnsLabel},
			"labels":    {Type: huma.TypeObject, AdditionalProperties: &huma.Schema{Type: huma.TypeString}},
			"spec":      schemaFor[S](d),
			"uid":       {Type: huma.TypeString, Description: ignored},
			"revision":  {Type: huma.TypeInteger, Format: "int64", Minimum: new(0.0), Description: ignored},
			"createdAt": {Type: huma.TypeString, Format: "date-time", Description: ignored},
			"status":    {Type: huma.TypeObject, AdditionalProperties: true, Description: ignored},
		}})
}

// schemaBook is the schemas by name.
type schemaBook map[string]*huma.Schema

// target follows a reference, also one that a note has wrapped; "" if s is none.
func (b schemaBook) target(s *huma.Schema) (name string) {
	if s.Ref == "" && len(s.AllOf) == 1 {
		s = s.AllOf[0]
	}
	return strings.TrimPrefix(s.Ref, "#/components/schemas/")
}

// tighten says what every document keeps to: a list is never null, and a text that may be left out is not empty.
func (b schemaBook) tighten() {
	requests := map[string]bool{}
	for _, k := range policy.Kinds() {
		b.reach(string(k)+"Request", requests)
	}
	for name, s := range b {
		for _, p := range s.Properties {
			if p.Type == huma.TypeArray {
				p.Nullable = false
			}
			for _, text := range []*huma.Schema{p, p.Items} {
				if text != nil && text.Type == huma.TypeString && text.Enum == nil && text.Pattern == "" && text.Format == "" && requests[name] {
					text.MinLength = new(1)
				}
			}
		}
	}
}

// reach collects the schemas that a schema refers to, itself included.
func (b schemaBook) reach(name string, seen map[string]bool) {
	if name == "" || seen[name] {
		return
	}
	seen[name] = true
	for _, p := range b[name].Properties {
		b.reach(b.target(p), seen)
		if p.Items != nil {
			b.reach(b.target(p.Items), seen)
		}
	}
}

// patchOf makes, of the schema of a structure, that of a merge patch to it (RFC 7386): nothing is required, null removes, lists are
// replaced as a whole.
func (b schemaBook) patchOf(name, patch string) {
	if b[patch] != nil {
		return
	}
	to := &huma.Schema{Type: huma.TypeObject, AdditionalProperties: false, Properties: map[string]*huma.Schema{}}
	b[patch] = to
	for field, p := range b[name].Properties {
		if ref := b.target(p); ref != "" && b[ref].Type == huma.TypeObject {
			b.patchOf(ref, ref+"Patch")
			to.Properties[field] = &huma.Schema{Description: p.Description, AnyOf: []*huma.Schema{refTo(ref + "Patch"), {Type: "null"}}}
			continue
		}
		c := *p
		if c.Type == "" && c.OneOf != nil { // a text or a number: null is one more
			c.OneOf = append(slices.Clip(c.OneOf), &huma.Schema{Type: "null"})
			to.Properties[field] = &c
			continue
		}
		c.Nullable = true
		if c.Enum != nil {
			c.Enum = append(slices.Clip(c.Enum), nil)
		}
		if values, ok := c.AdditionalProperties.(*huma.Schema); ok { // labels: null removes one
			v := *values
			v.Nullable = true
			c.AdditionalProperties = &v
		}
		to.Properties[field] = &c
	}
}

// patches adds the schemas of the bodies of PATCH.
func (b schemaBook) patches() {
	for _, kind := range policy.Kinds() {
		name := string(kind) + "Patch"
		b.patchOf(string(kind)+"Request", name)
		p := b[name]
		p.Description = "Fields to change (RFC 7386): null removes, lists are replaced as a whole"
		p.Properties["spec"] = refTo(b.target(b[string(kind)+"Request"].Properties["spec"]) + "Patch") // cannot go
	}
}

// parameters adds what huma cannot know of parameters that handlers read themselves.
func parameters(op *huma.Operation) {
	for _, p := range op.Parameters {
		switch {
		case p.Name == "If-Match":
			p.Schema.Pattern = etagList
		case p.Name == "If-None-Match":
			p.Schema.Pattern = `^\*$`
		case p.Name == "next" && op.OperationID != "list-workloads":
			p.Schema.Pattern = pageToken
		case p.In == "path" && op.Method == http.MethodPut:
			p.Schema.Pattern = dnsLabel
		case op.OperationID != "list-events" && op.OperationID != "follow-events":
		case p.Name == "port", p.Name == "from-port", p.Name == "to-port":
			p.Schema.Items.Pattern = `^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$`
		case p.Name == "limit":
			p.Schema = &huma.Schema{Type: huma.TypeInteger, Minimum: new(1.0), Maximum: new(float64(event.MaxLimit)), Default: event.DefaultLimit}
		case p.Name == "first":
			p.Schema = &huma.Schema{Type: huma.TypeBoolean}
		}
		p.Schema.Nullable = false
		for _, text := range []*huma.Schema{p.Schema, p.Schema.Items} {
			if text != nil && text.Type == huma.TypeString && text.Pattern == "" && text.Enum == nil && p.Name != "next" {
				text.MinLength = new(1)
			}
		}
	}
}
