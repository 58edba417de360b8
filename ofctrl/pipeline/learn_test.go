package pipeline_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// Learning changes what is told, and nothing of what becomes of a packet: without its copies each flow is what it is without learning, or
// what a flow beneath it does. What guests send as DHCP servers is not copied.
func TestLearningOnlyCopies(t *testing.T) {
	plain := map[flow.Key]flow.Flow{}
	for _, f := range append(pipeline.Fixed(pipeline.Options{}), pipeline.DHCPServer(64, false)...) {
		plain[f.Key()] = f
	}
	copies, above := 0, 0
	for _, f := range append(pipeline.Fixed(pipeline.Options{Learning: true}), pipeline.DHCPServer(64, true)...) {
		if c, ok := f.Actions[:min(len(f.Actions), 1)], len(f.Actions) > 1; ok {
			if x, is := c[0].(flow.Controller); is && x.MeterID == pipeline.MeterLearn {
				f.Actions, copies = f.Actions[1:], copies+1
				if x.UserData != pipeline.CopyAddress.UserData() {
					t.Errorf("%s tells %x", f.String(), x.UserData)
				}
				from, bound := f.Match.Get(pipeline.SourceEndpoint.Field)
				if f.Table == pipeline.TableLink && slices.ContainsFunc(f.Match, func(m flow.Term) bool {
					return m.Field == flow.UDPSrc
				}) && (!bound || from.Value.Lo != 0 && from.Value.Lo != 64) {
					t.Errorf("anybody may say who has which address: %s", f.String())
				}
			}
		}
		same, there := plain[f.Key()]
		if !there {
			above++
			beneath := f
			beneath.Priority--
			beneath.Match = slices.DeleteFunc(slices.Clone(f.Match), func(m flow.Term) bool {
				return m.Field == pipeline.SourceEndpoint.Field
			})
			same = plain[beneath.Key()]
		}
		if diff := cmp.Diff(same.Actions, f.Actions); diff != "" {
			t.Errorf("%s does something else: %s", f.String(), diff)
		}
	}
	if copies != 5 || above != 3 {
		t.Errorf("%d flows copy, and %d stand above", copies, above)
	}
}
