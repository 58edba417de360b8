package wall_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// Flows with numbers beyond the reserved block are held back, all others and all removals are not, and a further block lets them go;
// also where the numbers begin again at 1.
func TestReserve(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]uint32{"early": 1, "at the end of the round": pipeline.MaxNumber - 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := wall.NewFirewall(wall.Options{Bridge: "br0", Assignments: &wall.Assignments{Next: next}})
			if err != nil {
				t.Fatal(err)
			}
			f.Reserve(next)
			bound, due := f.Reservation(56)
			if !due || bound != 1+(next+55)%pipeline.MaxNumber {
				t.Fatalf("bound %d, due %v", bound, due)
			}
			f.Reserve(bound)
			if _, due := f.Reservation(56); due {
				t.Error("due with a whole block left")
			}
			endpoint := func(i int) *policy.Workload {
				key := fmt.Sprintf("vm%d", i)
				return &policy.Workload{Key: key, Bridge: "br0", Port: key, OFPort: uint32(i), MAC: fmt.Sprintf("52:54:00:00:00:%02x", i)}
			}
			// An endpoint takes 16 numbers, for its generations, and the class of all has two for its defaults.
			ws := []*policy.Workload{endpoint(1), endpoint(2)}
			f.SetWorkloads(ws, nil)
			f.Compile()
			if held := f.Held(); len(held) != 0 {
				t.Errorf("held with the block not used up: %v", held)
			}
			if _, due := f.Reservation(56); !due {
				t.Error("not due with less than half of a block left")
			}
			ws = append(ws[1:], endpoint(3), endpoint(4)) // 32 numbers more, and vm1 goes
			f.SetWorkloads(ws, nil)
			ch := f.Compile()
			if flows, told := ch.Owners[wall.OwnerEndpoint("vm1")]; !told || len(flows) > 0 {
				t.Errorf("of what went: %v", flows)
			}
			if held := f.Held(); !slices.Contains(held, wall.OwnerEndpoint("vm4")) {
				t.Errorf("held: %v", held)
			}
			// vm4 has no number that is reserved: nothing comes from it, and what is sent to it is dropped instead of judged as sent to nobody.
			for _, fl := range ch.Owners[wall.OwnerEndpoint("vm4")] {
				if fl.Table != pipeline.TableDestination || len(fl.Actions) > 0 || fl.Cookie != pipeline.DropUndecided.Cookie() {
					t.Errorf("of vm4: %s", fl.String())
				}
			}
			for _, owner := range []string{"vm3", "vm4"} {
				if !slices.ContainsFunc(ch.Owners[wall.OwnerEndpoint(owner)],
					func(fl flow.Flow) bool { return fl.Table == pipeline.TableDestination }) {
					t.Errorf("frames to %s are judged as frames to nobody", owner)
				}
			}
			bound, _ = f.Reservation(56)
			f.Reserve(bound)
			ch = f.Compile()
			if held := f.Held(); len(held) != 0 {
				t.Errorf("held behind the next block: %v", held)
			}
			for _, fl := range ch.Owners[wall.OwnerEndpoint("vm4")] {
				if fl.Table == pipeline.TableDestination && len(fl.Actions) == 0 {
					t.Errorf("of vm4: %s", fl.String())
				}
			}
			if n := len(ch.Owners[wall.OwnerEndpoint("vm4")]); n < 6 {
				t.Errorf("vm4 has %d flows", n)
			}
		})
	}
}
