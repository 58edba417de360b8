package pipeline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// Document renders docs/pipeline.md from the declarations of this package. The example of a table is a flow of it as ovs-ofctl prints
// it; a table without flows in the example bridge has none. rules are some of its rules' flows.
func Document(examples map[uint8]flow.Flow, rules []flow.Flow) string {
	var d document
	d.text(documentHead)
	d.tables(examples)
	d.text(documentWay)
	d.registers()
	d.ids()
	d.cookies()
	d.text(documentNumbers)
	d.text(documentRules)
	d.line("```")
	for i := range rules {
		d.line("%s", rules[i].String())
	}
	d.line("```")
	return d.String()
}

type document struct{ strings.Builder }

func (d *document) line(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *document) text(s string) { d.WriteString(strings.TrimLeft(s, "\n")) }

func (d *document) tables(examples map[uint8]flow.Flow) {
	d.line("## Tables\n")
	d.line("| Table | Name | Looks at | Does |\n|---|---|---|---|")
	for _, t := range Tables() {
		does := t.Does
		if t.Pickup {
			does += " (pickup window only)"
		}
		d.line("| %d | %s | %s | %s |", t.ID, t.Name, t.Matches, does)
	}
	d.line("\nOne flow of each, from the bridge of the last section:\n\n```")
	for _, t := range Tables() {
		if f, ok := examples[t.ID]; ok {
			d.line("%-17s %s", t.Name, f.String())
		}
	}
	d.line("```\n")
}

// registers draws each register, and ct_mark and ct_label, with one character per bit.
func (d *document) registers() {
	d.line("## Registers, ct_mark and ct_label\n")
	d.line("reg0–reg7 and the fields that are not named here are never touched. Writes to ct_mark and ct_label are masked.\n")
	fields := Fields()
	for len(fields) > 0 {
		n := 1
		for n < len(fields) && fields[n].Field == fields[0].Field {
			n++
		}
		d.draw(fields[:n])
		fields = fields[n:]
	}
}

func (d *document) draw(fields []Field) {
	top := 0
	for _, f := range fields {
		top = max(top, int(f.Ofs+f.Bits))
	}
	width := 32
	if top > 32 {
		width = 128
	}
	picture := []byte(strings.Repeat(".", width))
	for i, f := range fields {
		for b := f.Ofs; b < f.Ofs+f.Bits; b++ {
			picture[width-1-int(b)] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i]
		}
	}
	d.line("```\n%s", fields[0].Field)
	for at := 0; at < width; at += 32 {
		var groups []string
		for i := at; i < at+32; i += 8 {
			groups = append(groups, string(picture[i:i+8]))
		}
		d.line("%4d %s %d", width-1-at, strings.Join(groups, " "), width-32-at)
	}
	for i, f := range fields {
		d.line("     %c [%d..%d] %s: %s", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i], f.Ofs, f.Ofs+f.Bits-1, f.Name, f.Doc)
	}
	d.line("```\n")
}

func (d *document) ids() {
	d.line("## Ids, zones, meters\n")
	d.line("An id of 32 bits says what decided about one side of a connection. It stands in reg11 and reg12, in ct_label, in cookies and in")
	d.line("the copies that the controller gets.\n")
	d.line("| Id | Meaning |\n|---|---|")
	d.line("| `0x%08x` + n | rule n |", 0)
	d.line("| `%#x` | there is no endpoint on that side; its gates ask the registers whether that is still so |", IDNoEndpoint)
	d.line("| `%#x` + n | default allow of a class of endpoints in one direction |", IDDefaultAllow)
	d.line("| `%#x` + class | default deny of the class, egress |", IDDefaultDeny)
	d.line("| `%#x` + class | default deny of the class, ingress |", IDDefaultDeny|IDIngress)
	d.line("\nNumbers (of rules, default allows and endpoints) come from one counter and are not used twice.\n")
	d.line("The conntrack zone of VLAN v (0 = untagged) on the k-th bridge of the host is `%#x - 0x1000*k + v`, k = 0…%d.\n", ZoneBase(0),
		MaxBridges-1)
	d.line("The controller is addressed by id `%#x`. Copies of what passes go through meter `%#x`, of what is denied through `%#x` (which may",
		ControllerID, MeterLog, MeterDeny)
	d.line("drop the copy, never the packet), so that neither displaces the other. They have at most %d bytes", LogBytes)
	d.line("and carry two bytes of userdata: `%#x` and the reason.\n", userDataMagic)
	d.line("| Userdata | Reason |\n|---|---|")
	for _, r := range CopyReasons() {
		d.line("| `%x` | %s |", r.UserData(), r)
	}
	d.line("")
}

func (d *document) cookies() {
	d.line("## Cookies\n")
	d.line("A cookie is 24 bits of magic `%#x`, 8 bits of kind and 32 bits of object id.\n", uint64(CookieMagic>>40))
	d.line("| Kind | Name | Object id |\n|---|---|---|")
	for _, k := range []struct {
		kind CookieKind
		id   string
	}{
		{CookieSystem, "table × 256 + item"}, {CookieDrop, "why it drops, see below"}, {CookieRule, "rule id"},
		{CookieDefault, "id of the default"},
		{CookiePickup, "unused; of earlier versions"}, {CookieSample, "reserved"}, {CookieDNS, "reserved"}, {CookieQuarantine,
			"hash of the quarantine's name, even; odd: what is sent to its ports"},
		{CookieEndpoint, "first of the endpoint's ids: what classifies its packets"}, {CookieNumber, "address or service number"},
		{CookieClause, "number of the rule's conjunction: its clauses"},
		{CookieGuard, "first of the endpoint's ids: what the guard refuses of it"},
	} {
		d.line("| %d | %s | %s |", uint8(k.kind), k.kind, k.id)
	}
	var items []string
	for i := ItemARP; i <= ItemUnknownMAC; i++ {
		items = append(items, fmt.Sprintf("%d %s", uint8(i), i))
	}
	d.line("\nItems with a counter of their own: %s; 0 is everything else.", strings.Join(items, ", "))
	d.line("\n| Reason | Counts |\n|---|---|")
	reasons := DropReasons()
	slices.Sort(reasons)
	for _, r := range reasons {
		d.line("| %d | %s |", uint32(r), r)
	}
	d.line("\n`ovs-ofctl dump-flows BRIDGE \"cookie=%#x/%#x\"` shows what was dropped, by reason.\n", uint64(NewCookie(CookieDrop, 0)),
		uint64(CookieMagicMask|0xff<<32))
}
