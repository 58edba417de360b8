package flow_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// exact compares flows part by part, where Equal would accept two spellings of the same.
func exact() cmp.Options {
	type plainFlow flow.Flow
	return cmp.Options{
		cmp.Transformer("flow", func(f flow.Flow) plainFlow { return plainFlow(f) }),
		cmp.Transformer("match", func(m flow.Match) []flow.Term { return append([]flow.Term(nil), m...) }),
		cmp.Comparer(func(a, b flow.NAT) bool { return a == b }),
	}
}

func TestMatchText(t *testing.T) {
	for _, row := range goldenMatches() {
		t.Run(row.text, func(t *testing.T) {
			if err := row.match.Validate(); err != nil {
				t.Errorf("Validate: %v", err)
			}
			if got := row.match.String(); got != row.text {
				t.Errorf("String\n got %s\nwant %s", got, row.text)
			}
			got, err := flow.ParseMatch(row.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.match.Normalize(), got, exact()); diff != "" {
				t.Errorf("ParseMatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestActionText(t *testing.T) {
	for _, row := range goldenActions() {
		t.Run(row.text, func(t *testing.T) {
			f := flow.Flow{Actions: row.actions}
			if err := f.Validate(); err != nil {
				t.Errorf("Validate: %v", err)
			}
			if got := flow.ActionsString(row.actions); got != row.text {
				t.Errorf("ActionsString\n got %s\nwant %s", got, row.text)
			}
			var each []string
			for _, a := range row.actions {
				each = append(each, a.String())
			}
			if got := strings.Join(each, ","); got != row.text && len(each) > 0 {
				t.Errorf("String of each\n got %s\nwant %s", got, row.text)
			}
			got, err := flow.ParseActions(row.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.actions, got, exact()); diff != "" {
				t.Errorf("ParseActions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFlowText(t *testing.T) {
	for _, row := range goldenHeaders() {
		t.Run(row.text, func(t *testing.T) {
			if got := row.flow.String(); got != row.text {
				t.Errorf("String\n got %s\nwant %s", got, row.text)
			}
			got, err := flow.ParseFlow(row.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.flow, got, exact()); diff != "" {
				t.Errorf("ParseFlow (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGoldenCoverage fails when a field or an action is added and no golden row shows it.
func TestGoldenCoverage(t *testing.T) {
	matched, written, shown := map[flow.FieldID]bool{}, map[flow.FieldID]bool{}, map[string]bool{}
	for _, row := range goldenMatches() {
		for _, term := range row.match {
			matched[term.Field] = true
		}
	}
	var walk func([]flow.Action)
	walk = func(actions []flow.Action) {
		for _, a := range actions {
			shown[strings.TrimPrefix(fmt.Sprintf("%T", a), "flow.")] = true
			switch a := a.(type) {
			case flow.SetField:
				written[a.Field] = true
			case flow.Clone:
				walk(a.Actions)
			case flow.WriteActions:
				walk(a.Actions)
			case flow.CT:
				walk(a.Exec)
			}
		}
	}
	for _, row := range goldenActions() {
		walk(row.actions)
	}
	fields := 0
	for f := flow.FieldID(1); f.Valid(); f++ {
		fields++
		if !matched[f] {
			t.Errorf("no golden match has %s", f)
		}
		register := f >= flow.Reg0 && f <= flow.XXReg3
		if f.Writable() && !register && !written[f] {
			t.Errorf("no golden action sets %s", f)
		}
	}
	if fields < 90 {
		t.Errorf("only %d fields", fields)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "action.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	types := 0
	for _, d := range file.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "action" && fn.Recv != nil {
			types++
			if name := fn.Recv.List[0].Type.(*ast.Ident).Name; !shown[name] {
				t.Errorf("no golden action is a %s", name)
			}
		}
	}
	if types < 25 {
		t.Errorf("only %d types of actions found", types)
	}
}

func TestFieldNames(t *testing.T) {
	seen := map[string]flow.FieldID{}
	for f := flow.FieldID(1); f.Valid(); f++ {
		names := []string{f.String(), strings.TrimSuffix(flow.Whole(f).String(), "[]")}
		for _, n := range names {
			if other, dup := seen[n]; dup && other != f {
				t.Errorf("%q names %s and %s", n, f, other)
			}
			seen[n] = f
			if got, ok := flow.FieldByName(n); !ok || got != f {
				t.Errorf("FieldByName(%q) = %v, %v; want %v", n, got, ok, f)
			}
		}
		if b := f.Bits(); b < 1 || b > 128 {
			t.Errorf("%s has %d bits", f, b)
		}
	}
	for _, n := range []string{"", "tp_src", "NXM_NX_REG16", "reg", "nw_src "} {
		if f, ok := flow.FieldByName(n); ok {
			t.Errorf("FieldByName(%q) = %s", n, f)
		}
	}
	if f := flow.FieldID(255); f.Valid() || f.Bits() != 0 || f.String() != "field255" {
		t.Errorf("field 255: %v, %d bits, %q", f.Valid(), f.Bits(), f)
	}
}

func TestInstalled(t *testing.T) {
	const line = " cookie=0x0, duration=0.012s, table=0, n_packets=3, n_bytes=180, idle_timeout=5, idle_age=1, hard_age=2, send_flow_rem " +
		"priority=100,tcp,tp_dst=80 actions=NORMAL"
	got, err := flow.ParseInstalled(line)
	if err != nil {
		t.Fatal(err)
	}
	want := "cookie=0x0, duration=0.012s, table=0, n_packets=3, n_bytes=180, idle_timeout=5, send_flow_rem priority=100,tcp,tp_dst=80 " +
		"actions=NORMAL"
	if got.String() != want {
		t.Errorf("String\n got %s\nwant %s", got, want)
	}
	if got.Stats != (flow.Stats{Packets: 3, Bytes: 180, DurationNsec: 12e6}) {
		t.Errorf("stats %+v", got.Stats)
	}
	for nsec, want := range map[uint32]string{0: "7s", 1e6: "7.001s", 120e6: "7.120s", 1: "7.000000001s", 123456700: "7.1234567s"} {
		i := flow.Installed{Stats: flow.Stats{DurationSec: 7, DurationNsec: nsec}}
		text := i.String()
		if !strings.Contains(text, " duration="+want+",") {
			t.Errorf("%d ns: %s, want %s", nsec, text, want)
		}
		if back, err := flow.ParseInstalled(text); err != nil || back.Stats != i.Stats {
			t.Errorf("%s read back as %+v, %v", text, back.Stats, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	const a = ",actions=drop"
	for _, tt := range []struct {
		name, line string
		off        int
		token, msg string
		is         error
	}{
		{"nothing", "", 0, "", "actions= is missing", flow.ErrSyntax},
		{"no actions", "tcp", 3, "", "actions= is missing", flow.ErrSyntax},
		{"unknown field", "tcp,foo=1" + a, 4, "foo=1", "neither a field", flow.ErrSyntax},
		{"no value", "tcp,tp_dst" + a, 4, "tp_dst", "a value is missing", flow.ErrSyntax},
		{"port too large", "tcp,tp_dst=70000" + a, 4, "tp_dst=70000", "does not fit into 16 bits", flow.ErrSyntax},
		{"huge number", "metadata=0x123456789012345678901234567890123456789" + a, 0, "metadata", "does not fit into 64 bits", flow.ErrSyntax},
		{"huge decimal", "metadata=999999999999999999999999999999999999999999" + a, 0, "metadata", "does not fit", flow.ErrSyntax},
		{"octal", "reg0=010" + a, 0, "reg0=010", "leading zero", flow.ErrSyntax},
		{"bad address", "ip,nw_src=10.0.0" + a, 3, "nw_src=10.0.0", "not an IPv4 address", flow.ErrSyntax},
		{"long prefix", "ip,nw_src=10.0.0.0/33" + a, 3, "nw_src", "prefix length 33", flow.ErrSyntax},
		{"wrong family", "ip,nw_src=::1" + a, 3, "nw_src=::1", "not an IPv4 address", flow.ErrSyntax},
		{"zone", "ipv6,ipv6_src=fe80::1%eth0" + a, 5, "ipv6_src", "not an IPv6 address", flow.ErrSyntax},
		{"bad MAC", "dl_src=00:11:22:33:44" + a, 0, "dl_src", "not an Ethernet address", flow.ErrSyntax},
		{"bad flag", "ct_state=+foo" + a, 0, "ct_state=+foo", `"foo" is not one of new`, flow.ErrSyntax},
		{"flag twice", "ct_state=+new-new" + a, 0, "ct_state", "given twice", flow.ErrSyntax},
		{"contradiction", "tcp,nw_proto=17" + a, 4, "nw_proto=17", `contradicts "tcp" at 0`, flow.ErrSyntax},
		{"two registers", "reg0=1,reg0=2" + a, 7, "reg0=2", `contradicts "reg0=1"`, flow.ErrSyntax},
		{"register and xreg", "reg1=1,xreg0=2" + a, 7, "xreg0=2", "contradicts a register", flow.ErrInvalid},
		{"not maskable", "ip,nw_proto=6/7" + a, 3, "nw_proto=6/7", "cannot be masked", flow.ErrSyntax},
		{"missing tcp", "tcp_dst=80" + a, 0, "tcp_dst=80", "tcp_dst needs tcp or tcp6", flow.ErrInvalid},
		{"missing protocol", "ip,tp_dst=80" + a, 3, "tp_dst=80", "needs tcp, udp or sctp", flow.ErrInvalid},
		{"missing ip", "nw_src=10.0.0.1" + a, 0, "nw_src=10.0.0.1", "needs ip", flow.ErrInvalid},
		{"missing ct", "ip,ct_nw_src=10.0.0.1" + a, 3, "ct_nw_src", "ct_state=+trk-inv", flow.ErrInvalid},
		{"recirc_id", "recirc_id=1" + a, 0, "recirc_id=1", "belong to the switch", flow.ErrInvalid},
		{"partial pcp", "vlan_tci=0x3000/0x3000" + a, 0, "vlan_tci", "OpenFlow 1.3 cannot match", flow.ErrInvalid},
		{"later fragment with ports", "tcp,nw_frag=later,tp_dst=80" + a, 18, "tp_dst=80", "not a later fragment", flow.ErrInvalid},
		{"bits outside", "reg0[30..33]=1" + a, 0, "reg0[30..33]=1", "not within the 32 bits", flow.ErrSyntax},
		{"no table 255", "table=255" + a, 0, "table=255", "no table 255", flow.ErrSyntax},
		{"priority", "priority=65536" + a, 0, "priority=65536", "16 bits", flow.ErrSyntax},
		{"cookie mask", "cookie=1/1" + a, 0, "cookie=1/1", "no cookie mask", flow.ErrSyntax},
		{"parenthesis open", "actions=ct(commit", 8, "ct(commit", "closing parenthesis is missing", flow.ErrSyntax},
		{"parenthesis closed", "actions=output:1)", 16, ")", "without an opening one", flow.ErrSyntax},
		{"unknown action", "actions=output:1,foo(2)", 17, "foo(2)", "unknown action", flow.ErrSyntax},
		{"drop and more", "actions=drop,output:1", 8, "drop", "drop stands alone", flow.ErrSyntax},
		{"order", "actions=goto_table:3,output:1", 21, "output:1", "out of order", flow.ErrInvalid},
		{"backwards", "table=5,actions=goto_table:5", 16, "goto_table:5", "does not go forward", flow.ErrInvalid},
		{"instruction inside", "actions=clone(output:1,goto_table:5)", 23, "goto_table:5", "instruction", flow.ErrInvalid},
		{"exec", "ip,actions=ct(commit,exec(load:1->NXM_NX_REG0[]))", 26, "load:1->NXM_NX_REG0[]", "only changes of ct_mark", flow.ErrInvalid},
		{"ct_mark outside", "ip,actions=load:1->NXM_NX_CT_MARK[]", 11, "load", "only in ct(exec", flow.ErrInvalid},
		{"nat range", "ip,actions=ct(commit,nat(src=10.0.0.9-10.0.0.1))", 11, "ct(commit", "must be higher", flow.ErrInvalid},
		{"nat port", "ip,actions=ct(commit,nat(src=10.0.0.9:70000))", 25, "src=10.0.0.9:70000", "16 bits", flow.ErrSyntax},
		{"load too wide", "actions=load:0x100->NXM_NX_REG0[0..7]", 8, "load:0x100", "8 bits", flow.ErrSyntax},
		{"move widths", "actions=move:NXM_NX_REG0[]->NXM_NX_REG1[0..7]", 8, "move", "32 bits into 8", flow.ErrInvalid},
		{"read-only", "tcp,actions=set_field:1->tcp_flags", 12, "set_field", "read-only", flow.ErrInvalid},
		{"read-only state", "actions=set_field:new->ct_state", 8, "set_field", "read-only", flow.ErrInvalid},
		{"clauses", "actions=conjunction(1,3/2)", 8, "conjunction(1,3/2)", "counted from 1", flow.ErrInvalid},
		{"conjunction and output", "actions=conjunction(1,1/2),output:1", 27, "output:1", "beside other actions", flow.ErrInvalid},
		{"resubmit to nothing", "actions=resubmit(,)", 8, "resubmit(,)", "neither port nor table", flow.ErrInvalid},
		{"short note", "actions=note:01", 8, "note:01", "6, 14, 22", flow.ErrInvalid},
		{"truncation", "actions=output(port=1,max_len=13)", 8, "output", "14 or more", flow.ErrInvalid},
		{"reserved port", "actions=output:65290", 8, "output:65290", "not a port", flow.ErrSyntax},
		{"nested too deep", "actions=" + strings.Repeat("clone(", 40) + "drop" + strings.Repeat(")", 40), 110, "clone(", "nested deeper",
			flow.ErrSyntax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := flow.ParseFlow(tt.line)
			if err == nil {
				t.Fatalf("accepted as %s", got)
			}
			var pe *flow.ParseError
			if !errors.As(err, &pe) {
				t.Fatalf("%T: %v", err, err)
			}
			if pe.Offset != tt.off || !strings.HasPrefix(pe.Token, tt.token) || !strings.Contains(pe.Msg, tt.msg) || !errors.Is(err, tt.is) {
				t.Errorf("got %v (%v), want offset %d, token %q, message with %q, %v", err, pe.Err, tt.off, tt.token, tt.msg, tt.is)
			}
			if len(err.Error()) > 300 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}
