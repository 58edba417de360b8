package policy

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// walker fills Go values from a tree by their json tags and records everything that does not fit.
type walker struct {
	faultList
	fields map[reflect.Type]map[string]structField
}

type structField struct {
	index   []int
	minimum string // tag "minimum" of numbers whose zero means "left out", so that a written 0 does not pass for that
}

func newWalker() *walker { return &walker{fields: make(map[reflect.Type]map[string]structField)} }

// document fills a resource. kind was looked at by the caller or must agree.
func (w *walker) document(o object, r Resource) {
	var root pointer
	var rest object
	rest.line = o.line
	seen := make(map[string]bool)
	for i, m := range o.members {
		switch m.key {
		case "kind", "status":
			if seen[m.key] {
				w.again(root, &o.members[i])
			}
			seen[m.key] = true
		}
		switch m.key {
		case "kind":
			if m.value != string(r.Kind()) {
				w.addf(root.field("kind"), plain(m.value), "must be %s here", r.Kind())
			}
		case "status": // what was observed is not for the user to say
		default:
			rest.members = append(rest.members, m)
		}
	}
	if _, ok := rest.get("spec"); !ok {
		w.addf(root.field("spec"), nil, "is required")
	}
	w.structure(root, rest, reflect.ValueOf(r).Elem())
	m := r.GetMeta()
	if m.CreatedAt = m.CreatedAt.UTC(); m.CreatedAt.Year() < 0 || m.CreatedAt.Year() > 9999 {
		w.addf(root.field("createdAt"), nil, "is outside the years 0-9999")
		m.CreatedAt = time.Time{}
	}
}

// again reports a field that was there before; the first one counts.
func (w *walker) again(at pointer, m *member) {
	w.add(Fault{Pointer: at.field(m.key).String(), Detail: "is given more than once", Line: m.line})
}

// value fills dst from v.
func (w *walker) value(at pointer, v any, dst reflect.Value) {
	if dst.Kind() == reflect.Pointer {
		if v == nil {
			return
		}
		dst.Set(reflect.New(dst.Type().Elem()))
		w.value(at, v, dst.Elem())
		return
	}
	if v == nil {
		w.addf(at, nil, "is null: give %s or leave the field out", wanted(dst.Type()))
		return
	}
	switch dst.Kind() {
	case reflect.String:
		s, ok := v.(string)
		if n, is := v.(number); is && (dst.Type() == reflect.TypeFor[Protocol]() || dst.Type() == reflect.TypeFor[VLANTag]()) {
			s, ok = string(n), true
		}
		switch {
		case !ok:
			w.mismatch(at, v, dst.Type())
		case s == "":
			w.addf(at, nil, "is empty: give a text or leave the field out")
		}
		dst.SetString(s)
	case reflect.Bool:
		b, ok := v.(bool)
		if !ok {
			w.mismatch(at, v, dst.Type())
		}
		dst.SetBool(b)
	case reflect.Int, reflect.Int64:
		w.integer(at, v, dst)
	case reflect.Slice:
		l, ok := v.(list)
		if !ok {
			w.mismatch(at, v, dst.Type())
			return
		}
		dst.Set(reflect.MakeSlice(dst.Type(), len(l.items), len(l.items)))
		for i, item := range l.items {
			if s, ok := dst.Index(i).Addr().Interface().(*Selector); ok && s.readCIDR(item) {
				continue
			}
			w.value(at.at(i), item, dst.Index(i))
		}
	case reflect.Map:
		w.texts(at, v, dst)
	case reflect.Struct:
		if dst.Type() == reflect.TypeFor[time.Time]() {
			w.time(at, v, dst)
			return
		}
		if log, ok := dst.Addr().Interface().(*RuleLog); ok {
			w.ruleLog(at, v, log)
			return
		}
		o, ok := v.(object)
		if !ok {
			w.mismatch(at, v, dst.Type())
			return
		}
		w.structure(at, o, dst)
	default:
		panic(fmt.Sprintf("policy: specifications have no fields of type %s", dst.Type()))
	}
}

// readCIDR fills the selector from {cidr: text}, as most members of a large group are.
func (s *Selector) readCIDR(v any) bool {
	o, ok := v.(object)
	if !ok || len(o.members) != 1 || o.members[0].key != "cidr" {
		return false
	}
	text, ok := o.members[0].value.(string)
	if !ok || text == "" {
		return false
	}
	s.CIDR = text
	return true
}

func (w *walker) integer(at pointer, v any, dst reflect.Value) {
	n, ok := v.(number)
	if !ok {
		w.mismatch(at, v, dst.Type())
		return
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil || strconv.FormatInt(i, 10) != string(n) || i > math.MaxInt || i < math.MinInt {
		w.addf(at, plain(v), "must be a whole number in decimal digits, not %s", shorten(string(n)))
		return
	}
	dst.SetInt(i)
}

func (w *walker) time(at pointer, v any, dst reflect.Value) {
	s, ok := v.(string)
	if !ok {
		w.mismatch(at, v, dst.Type())
		return
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		w.addf(at, s, "must be a time like 2026-01-31T12:00:00Z (RFC 3339)")
		return
	}
	dst.Set(reflect.ValueOf(t))
}

// texts fills a map of texts to texts.
func (w *walker) texts(at pointer, v any, dst reflect.Value) {
	o, ok := v.(object)
	if !ok {
		w.mismatch(at, v, dst.Type())
		return
	}
	m := make(map[string]string, len(o.members))
	for i := range o.members {
		e := &o.members[i]
		s, ok := e.value.(string)
		if _, dup := m[e.key]; dup {
			w.again(at, e)
		} else if !ok {
			w.mismatch(at.field(e.key), e.value, reflect.TypeFor[string]())
		}
		m[e.key] = s
	}
	dst.Set(reflect.ValueOf(m))
}

func (w *walker) structure(at pointer, o object, dst reflect.Value) {
	fields := w.fieldsOf(dst.Type())
	seen := make(map[string]bool, len(o.members))
	for i := range o.members {
		m := &o.members[i]
		f, ok := fields[m.key]
		if !ok {
			w.unknown(at, m, fields)
			continue
		}
		if seen[m.key] {
			w.again(at, m)
			continue
		}
		seen[m.key] = true
		field := dst.FieldByIndex(f.index)
		w.value(at.field(m.key), m.value, field)
		if f.minimum != "" && m.value == number("0") {
			w.addf(at.field(m.key), plain(m.value), "must be at least %s", f.minimum)
		}
	}
}

// fieldsOf lists the fields of a struct by their names in documents, those of embedded structs included.
func (w *walker) fieldsOf(t reflect.Type) map[string]structField {
	if fs, ok := w.fields[t]; ok {
		return fs
	}
	fs := make(map[string]structField)
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" && !f.Anonymous {
			fs[name] = structField{index: f.Index, minimum: f.Tag.Get("minimum")}
		}
	}
	w.fields[t] = fs
	return fs
}

// mismatch explains a wrong type and, for texts that YAML took for something else, what to write.
func (w *walker) mismatch(at pointer, v any, want reflect.Type) {
	detail := fmt.Sprintf("must be %s, not %s", wanted(want), describe(v))
	if want.Kind() == reflect.String {
		switch v := v.(type) {
		case number:
			detail += fmt.Sprintf(": put it in quotes, %s", quote(string(v)))
		case bool:
			detail += fmt.Sprintf(`: put it in quotes, "%t"`, v)
		}
	}
	if like := likeness(want); like != "" {
		detail += ", such as " + like
	}
	w.addf(at, plain(v), "%s", detail)
}

// likeness is an example of what is written in another form most often; "" = there is none.
func likeness(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Selector]():
		return "{labels: {app: web}} or {cidr: 10.0.0.0/8}"
	case reflect.TypeFor[[]Selector]():
		return "[{labels: {app: web}}]"
	case reflect.TypeFor[Service](), reflect.TypeFor[*Service]():
		return `{protocol: tcp, ports: ["80"]}`
	case reflect.TypeFor[[]Service]():
		return `[{protocol: tcp, ports: ["80"]}]`
	case reflect.TypeFor[DefaultDeny](), reflect.TypeFor[*DefaultDeny]():
		return "{ingress: true, egress: true}"
	case reflect.TypeFor[[]string]():
		return `["…"]`
	}
	return ""
}

// wanted names a Go type as the writer of a document knows it.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	case reflect.Map:
		return "a map of texts"
	}
	if t == reflect.TypeFor[time.Time]() {
		return "a time"
	}
	return "a map"
}

// unknown reports a field that does not exist, and guesses what was meant.
func (w *walker) unknown(at pointer, m *member, fields map[string]structField) {
	f := Fault{Pointer: at.field(m.key).String(), Value: plain(m.value), Detail: "unknown field " + quote(m.key)}
	names := sortedKeys(fields)
	switch {
	case m.key == "metadata" || m.key == "apiVersion":
		f.Detail += ": kind, name, labels and spec stand at the top of a document"
	case slices.Contains(names, "spec") && w.ofSpec(m.key):
		f.Detail += ": it stands below spec, so indent it"
	case closest(m.key, names) != "":
		f.Detail += fmt.Sprintf(": did you mean %s?", closest(m.key, names))
	case len(names) == 0:
		f.Detail += ": nothing can be set here"
	default:
		f.Detail += ": known are " + strings.Join(names, ", ")
	}
	w.add(f)
}

// ofSpec reports whether the spec of some kind has a field of that name.
func (w *walker) ofSpec(key string) bool {
	for _, t := range []reflect.Type{reflect.TypeFor[PolicySpec](), reflect.TypeFor[GroupSpec](), reflect.TypeFor[EndpointSpec](),
		reflect.TypeFor[MirrorSpec](), reflect.TypeFor[QuarantineSpec]()} {
		if _, ok := w.fieldsOf(t)[key]; ok {
			return true
		}
	}
	return false
}

// closest returns the known name that differs from s by case or by at most two letters (one in short names), or "".
func closest(s string, names []string) string {
	best, bestDistance := "", 3
	if len(s) > 32 {
		return ""
	}
	if len(s) < 5 {
		bestDistance = 2
	}
	for _, n := range names {
		if strings.EqualFold(s, n) {
			return n
		}
		if d := editDistance(strings.ToLower(s), strings.ToLower(n)); d < bestDistance {
			best, bestDistance = n, d
		}
	}
	return best
}

// editDistance counts insertions, deletions and replacements of bytes, and swaps of neighbours, between two short strings.
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
