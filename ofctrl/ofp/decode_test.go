package ofp_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// Messages that a test switch does not send when asked, or sends in other words, by hand.
func TestDecode(t *testing.T) {
	head := func(typ ofp.Type, n uint16, xid uint32) ofp.Header {
		return ofp.Header{Version: ofp.Version13, Type: typ, Length: n, XID: xid}
	}
	for _, tt := range []struct {
		name string
		hex  string
		want ofp.Message
	}{
		{"hello without elements", "06000008 00000001", &ofp.Hello{Header: ofp.Header{Version: 6, Length: 8, XID: 1}}},
		{"hello with an unknown element before the bitmap", "0600001c 00000001 00770005 ff000000 00010008 00000072 0099 0004",
			&ofp.Hello{Header: ofp.Header{Version: 6, Length: 28, XID: 1}, Versions: 0x72}},
		{"hello of a 1.0 switch with something in it", "0100000b 00000001 ffffff", &ofp.Hello{Header: ofp.Header{Version: 1, Length: 11,
			XID: 1}}},
		{"echo", "0402000a 00000003 abcd", &ofp.EchoRequest{Header: head(ofp.TypeEchoRequest, 10, 3), Data: []byte{0xab, 0xcd}}},
		{"ONF error", "04010010 00000004 ffff090a 4f4e4600", &ofp.Error{Header: head(ofp.TypeError, 16, 4), Code: ofp.BundleTimeout,
			Data: []byte{}}},
		{"error", "0401000e 00000004 00050001 0000", &ofp.Error{Header: head(ofp.TypeError, 14, 4), Code: ofp.TableFull, Data: []byte{0, 0}}},
		{"monitor paused", "04040010 00000000 4f4e4600 0000074f", &ofp.MonitorPaused{Header: head(ofp.TypeExperimenter, 16, 0)}},
		{"monitor resumed", "04040010 00000000 4f4e4600 00000750", &ofp.MonitorResumed{Header: head(ofp.TypeExperimenter, 16, 0)}},
		{"Nicira's monitor paused", "04040010 00000000 00002320 00000016", &ofp.MonitorPaused{Header: head(ofp.TypeExperimenter, 16, 0)}},
		{"Nicira's monitor resumed", "04040010 00000000 00002320 00000017", &ofp.MonitorResumed{Header: head(ofp.TypeExperimenter, 16, 0)}},
		{"unknown vendor", "04040014 00000005 00beef00 00000001 01020304",
			&ofp.Unknown{Header: head(ofp.TypeExperimenter, 20, 5), Vendor: 0xbeef00, Subtype: 1, Body: []byte{1, 2, 3, 4}}},
		{"unknown multipart", "04130014 00000006 000c0000 00000000 01020304",
			&ofp.Unknown{Header: head(ofp.TypeMultipartReply, 20, 6), Kind: ofp.MultipartTableFeatures, Body: []byte{1, 2, 3, 4}}},
		{"unknown multipart of a vendor", "04130018 00000006 ffff0001 00000000 00002320 00000003",
			&ofp.Unknown{Header: head(ofp.TypeMultipartReply, 24, 6), Kind: ofp.MultipartExperimenter, Vendor: 0x2320, Subtype: 3, Body: []byte{}}},
		{"unknown type", "042a0009 00000006 aa", &ofp.Unknown{Header: head(42, 9, 6), Body: []byte{0xaa}}},
		{"packet-in with Nicira's own field forms, an unknown field and metadata of 64 bits",
			"040a0058 00000007 ffffffff 0006 02 09 00000000000000aa" +
				"0001 0035 00000002 fffe 00000a01 b8 80000408 0000000000000001 00010204 00000005 0001 5002 1234 00010f08 11111111 0000ffff 000000" +
				"0000 aabbccddeeff",
			&ofp.PacketIn{Header: head(ofp.TypePacketIn, 88, 7), BufferID: ofp.NoBuffer, TotalLen: 6, Reason: ofp.ReasonInvalidTTL, Table: 9,
				Cookie: 0xaa, UnknownFields: 1,
				Match: flow.Match{term(flow.InPort, uint64(flow.PortLocal)), term(flow.Metadata, 1), term(flow.Reg1, 5), masked(flow.Reg7, 0x1111,
					0xffff), term(flow.IPDSCP, 46)},
				Data: []byte{0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}}},
		{"NXT_PACKET_IN2 with every property and an unknown one",
			"0404008d 00000008 00002320 0000001e" +
				"0000 0007 aabbcc 00 0001 0008 00000bb8 0002 0008 00000009 0003 0005 0a 000000 0004 0010 00000000 00000000000000bb" +
				"0005 0005 01 000000 0006 000c 80000004 00000003 00000000 0077 0005 ff 000000 0007 000a 010203040506 000000000000 0008 000c " +
				"00000000 c0ffee00 00000000" +
				"0099 0005 aa",
			nil},
		{"role", "04190018 00000009 00000003 00000000 0000000000000005", &ofp.RoleReply{Header: head(ofp.TypeRoleReply, 24, 9),
			Role: ofp.RoleSecondary, GenerationID: 5}},
		{"abbreviated update", "04130020 00000000 ffff0001 00000000 4f4e4600 0000074e 0008 0003 00000a0b",
			&ofp.FlowUpdates{Part: ofp.Part{Header: head(ofp.TypeMultipartReply, 32, 0), Kind: ofp.MultipartExperimenter, More: true},
				Updates: []ofp.FlowUpdate{{Event: ofp.FlowAbbrev, AbbrevXID: 0xa0b}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.hex)
			if tt.want == nil {
				b[3] = byte(len(b))
			}
			got, err := ofp.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == nil {
				tt.want = &ofp.PacketIn{
					Header: ofp.Header{Version: 4, Type: ofp.TypeExperimenter, Length: uint16(len(b)), XID: 8}, Extended: true, BufferID: 9,
					TotalLen: 3000, Reason: ofp.ReasonAction,
					Table: 10, Cookie: 0xbb, Match: flow.Match{term(flow.InPort, 3)}, Data: []byte{0xaa, 0xbb, 0xcc},
					UserData: []byte{1, 2, 3, 4, 5, 6}, Continuation: []byte{0, 0, 0, 0, 0xc0, 0xff, 0xee, 0},
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	flowStats := func(match, instructions string) string {
		b := unhex(t, "0000 03 00 00000000 00000000 0001 0000 0000 0000 00000000 0000000000000001 0000000000000000 0000000000000000"+match+
			instructions)
		b[0], b[1] = byte(len(b)>>8), byte(len(b))
		n := len(b) + 16
		return "0413" + hexOf([]byte{byte(n >> 8), byte(n)}) + "00000001 0001 0000 00000000" + hexOf(b)
	}
	const noMatch = "0001000400000000"
	for _, tt := range []struct {
		name string
		hex  string
		want error
	}{
		{"header", "040000", ofp.ErrTruncated},
		{"length below the header", "04000007 00000000", ofp.ErrLength},
		{"length beyond the bytes", "04000009 00000000", ofp.ErrTruncated},
		{"bytes beyond the length", "04000008 00000000 00", ofp.ErrLength},
		{"version 1.4 packet-in", "050a0008 00000000", ofp.ErrUnsupported},
		{"empty packet-in", "040a0008 00000000", ofp.ErrTruncated},
		{"hello element shorter than its header", "0400000c 00000000 00010003", ofp.ErrLength},
		{"hello element beyond the end", "0400000c 00000000 00010009", ofp.ErrTruncated},
		{"hello bitmap of no bits", "0400000c 00000000 00010004", ofp.ErrTruncated},
		{"error without a vendor", "0401000c 00000000 ffff0001", ofp.ErrTruncated},
		{"property of length 0", "04040018 00000000 00002320 0000001e 00000000 00000000", ofp.ErrLength},
		{"property beyond the end", "04040018 00000000 00002320 0000001e 0000ffff 00000000", ofp.ErrTruncated},
		{"port description cut", "04130014 00000000 000d0000 00000000 00000001", ofp.ErrTruncated},
		{"flow entry of length 0", "04130018 00000000 00010000 00000000 0000000000000000", ofp.ErrLength},
		{"match of length 3", flowStats("0001000300000000", ""), ofp.ErrLength},
		{"match beyond the entry", flowStats("0001ffff00000000", ""), ofp.ErrTruncated},
		{"match of OpenFlow 1.1", flowStats("0000000400000000", ""), ofp.ErrUnsupported},
		{"OXM with a wrong length", flowStats("0001000b 80000003 000001 0000000000", ""), ofp.ErrLength},
		{"OXM twice", flowStats("00010014 80000004 00000001 80000004 00000001 00000000", ""), ofp.ErrValue},
		{"OXM experimenter without a vendor", flowStats("00010008 ffff5600", ""), ofp.ErrLength},
		{"instruction of length 0", flowStats(noMatch, "0004000000000000"), ofp.ErrLength},
		{"instruction of length 12", flowStats(noMatch, "0004000c0000000000000000"), ofp.ErrLength},
		{"two goto_table", flowStats(noMatch, "0001000801000000 0001000802000000"), ofp.ErrValue},
		{"action of length 0", flowStats(noMatch, "0004001000000000 0000000000000000"), ofp.ErrLength},
		{"action beyond the instruction", flowStats(noMatch, "0004001000000000 0000001800000000"), ofp.ErrTruncated},
		{"output cut", flowStats(noMatch, "0004001000000000 0000000800000001"), ofp.ErrTruncated},
		{"load of bits beyond the field", flowStats(noMatch, "0004002000000000 ffff001800002320 0007 07c1 00010004 0000000000000000"),
			ofp.ErrValue},
		{"nat outside ct", flowStats(noMatch, "0004001800000000 ffff001000002320 0024 0000 0000 0000"), ofp.ErrValue},
		{"clause 3 of 2", flowStats(noMatch, "0004001800000000 ffff001000002320 0022 02 02 00000001"), ofp.ErrValue},
		{"group bucket of length 0", "04130020 00000000 00070000 00000000 0010 00 00 00000001 0000000000000000", ofp.ErrLength},
		{"meter band of length 8", "04130020 00000000 000a0000 00000000 0010 0001 00000001 0001 0008 00000001", ofp.ErrLength},
		{"update of length 0", "04130020 00000000 ffff0000 00000000 4f4e4600 0000074e 0000 0003 00000a0b", ofp.ErrLength},
		{"update of an unknown event", "04130020 00000000 ffff0000 00000000 4f4e4600 0000074e 0008 0009 00000a0b", ofp.ErrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := ofp.Decode(unhex(t, tt.hex))
			var pe *ofp.ParseError
			if !errors.Is(err, tt.want) || !errors.As(err, &pe) || m != nil {
				t.Fatalf("got %+v, error %v, want %v", m, err, tt.want)
			}
			if pe.Msg == "" || pe.Field == "" || pe.Offset > len(tt.hex)/2 {
				t.Errorf("error without a place: %+v", pe)
			}
		})
	}
}

// Another controller's flows may hold what this package does not know; they must not hide the rest.
func TestUnknownInFlow(t *testing.T) {
	entry := func(match, instructions string) []byte {
		b := unhex(t, "0000 03 00 00000000 00000000 0001 0000 0000 0000 00000000 0000000000000009 0000000000000000 0000000000000000"+match+
			instructions)
		b[0], b[1] = byte(len(b)>>8), byte(len(b))
		return b
	}
	// tun_metadata0
	body := entry("00010014 80000004 00000001 00015004 00000001 00000000", "")
	// learn, output:2
	body = append(body, entry("0001000400000000", "0004002800000000 ffff001000002320 0010 000000000000 0000001000000002 0000000000000000")...)
	body = append(body, entry("0001000400000000", "0001000805000000")...)
	n := len(body) + 16
	got, err := ofp.Decode(append(unhex(t, "0413"+hexOf([]byte{byte(n >> 8), byte(n)})+"00000001 0001 0000 00000000"), body...))
	if err != nil {
		t.Fatal(err)
	}
	fs := got.(*ofp.FlowStatsReply).Flows
	want := []struct {
		text string
		err  bool
	}{{"in_port=1 actions=drop", true}, {"actions=output:2", true}, {"actions=goto_table:5", false}}
	if len(fs) != len(want) {
		t.Fatalf("%d flows", len(fs))
	}
	for i, w := range want {
		f := fs[i].Flow
		if s := (flow.Flow{Match: f.Match, Actions: f.Actions}).Actions; f.Cookie != 9 || errors.Is(fs[i].Err, ofp.ErrUnsupported) != w.err {
			t.Errorf("%v %v: %v", f, s, fs[i].Err)
		}
		if !hasSuffix(f.String(), w.text) {
			t.Errorf("got %v, want %s", f, w.text)
		}
	}
}

func hasSuffix(s, suffix string) bool {
	return len(s) >= len(suffix) && s[len(s)-len(suffix):] == suffix
}

// What is decoded may be kept by a copy after the buffer is used again.
func TestPacketInClone(t *testing.T) {
	b := unhex(t, "04040038 00000008 00002320 0000001e 0000 0007 aabbcc 00 0006 000c 80000004 00000003 00000000 0008 0008 00000000 0007 "+
		"0005 aa 000000")
	m, err := ofp.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	c := m.(*ofp.PacketIn).Clone()
	if diff := cmp.Diff(m, ofp.Message(c)); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
	clear(b)
	if c.Data[0] != 0xaa || c.UserData[0] != 0xaa {
		t.Errorf("the clone changed with the buffer: %+v", c)
	}
	if p := m.(*ofp.PacketIn); p.Data[0] != 0 {
		t.Error("the decoded message was copied after all; say so in its documentation")
	}
	c.Match[0].Value = flow.U64(4)
	if p := m.(*ofp.PacketIn); p.Match[0].Value.Lo != 3 {
		t.Error("the clone shares its match")
	}
}

func TestDecodePacketIn(t *testing.T) {
	p := &ofp.PacketIn{Match: make(flow.Match, 0, 16), UserData: []byte("old")}
	b := unhex(t, "040a0022 00000007 ffffffff 0006 02 09 00000000000000aa 0001000c 80000004 00000003 00000000 0000")
	b[3] = byte(len(b))
	ok, err := ofp.DecodePacketIn(p, b)
	if !ok || err != nil || p.Match.String() != "in_port=3" || p.UserData != nil {
		t.Errorf("%v %v %+v", ok, err, p)
	}
	for _, s := range []string{"04000008 00000001", "0404000c 00000001 00002320", "04040010 00000001 00002320 0000001d"} {
		if ok, err := ofp.DecodePacketIn(p, unhex(t, s)); ok || err != nil {
			t.Errorf("%s: %v %v", s, ok, err)
		}
	}
	if ok, err := ofp.DecodePacketIn(p, b[:20]); !ok || !errors.Is(err, ofp.ErrTruncated) {
		t.Errorf("cut: %v %v", ok, err)
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		ofp.TypeMeterMod.String():                                             "OFPT_METER_MOD",
		ofp.Type(77).String():                                                 "OFPT(77)",
		ofp.MultipartPortDesc.String():                                        "OFPMP_PORT_DESC",
		ofp.MultipartExperimenter.String():                                    "OFPMP_EXPERIMENTER",
		ofp.Version13.String():                                                "OpenFlow13",
		ofp.Version(9).String():                                               "version 9",
		ofp.FlowDeleteStrict.String():                                         "OFPFC_DELETE_STRICT",
		ofp.GroupDelete.String():                                              "OFPGC_DELETE",
		ofp.MeterModify.String():                                              "OFPMC_MODIFY",
		ofp.BundleDiscardReply.String():                                       "OFPBCT_DISCARD_REPLY",
		ofp.RoleSecondary.String():                                            "secondary",
		ofp.FormatNXM2.String():                                               "nxt_packet_in2",
		ofp.ErrorMeterModFailed.String():                                      "OFPET_METER_MOD_FAILED",
		ofp.TableFull.String():                                                "OFPFMFC_TABLE_FULL",
		ofp.IsSecondary.String():                                              "OFPBRC_IS_SECONDARY",
		ofp.GroupExists.String():                                              "OFPGMFC_GROUP_EXISTS",
		ofp.BundleFailed.String():                                             "OFPBFC_MSG_FAILED",
		ofp.BundleBadXID.String():                                             "OFPBFC_MSG_BAD_XID",
		ofp.ResumeStale.String():                                              "NXR_STALE",
		ofp.NewErrorCode(ofp.VendorONF, 0, 4250).String():                     "OFPBAC_BAD_SET_MASK",
		ofp.NewErrorCode(0, ofp.ErrorHelloFailed, 0).String():                 "OFPHFC_INCOMPATIBLE",
		ofp.NewErrorCode(ofp.VendorNicira, 0, 999).String():                   "Nicira error 999",
		ofp.NewErrorCode(ofp.VendorONF, 0, 9999).String():                     "ONF error 9999",
		ofp.NewErrorCode(0x5c16c7, 0, 7).String():                             "error 7 of vendor 0x5c16c7",
		ofp.NewErrorCode(0, ofp.ErrorFlowModFailed, 777).String():             "OFPET_FLOW_MOD_FAILED code 777",
		(&ofp.Error{Data: []byte("no version\x00")}).Error():                  `OFPHFC_INCOMPATIBLE: "no version"`,
		(&ofp.Error{Code: ofp.TableFull, Header: ofp.Header{XID: 5}}).Error(): "OFPFMFC_TABLE_FULL (xid 0x5)",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	// The names come from a table that is searched by halves: every ONF bundle error must be found.
	for c := range uint16(16) {
		if s := ofp.NewErrorCode(ofp.VendorONF, 0, 2300+c).String(); len(s) < 7 || s[:7] != "OFPBFC_" {
			t.Errorf("bundle error %d: %s", 2300+c, s)
		}
	}
}
