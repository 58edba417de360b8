package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// linesOf are the events that a follower wrote to a file, by id and the port that they are about, in order.
func linesOf(t *testing.T, file string) (ids []string, ports []int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if !errors.Is(err, fs.ErrNotExist) { // it has not begun
		must(t, err)
	}
	for line := range strings.Lines(string(text)) {
		var e event.Event
		if json.Unmarshal([]byte(line), &e) == nil && e.Event.ID != "" {
			ids = append(ids, e.Event.ID)
			if e.Destination != nil {
				ports = append(ports, e.Destination.Port)
			}
		}
	}
	return ids, ports
}

// A follower prints what was and what comes, each event once and in order, also when tapwall is killed and started again meanwhile, and
// says on stderr that the stream broke and goes on.
func TestObserveFollowsOverRestart(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(loggedPolicy)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5101)
	lab.Eventually(t, 5*time.Second, "the first denial is recorded", func() bool { return len(s.events("--to-port", "5101")) > 0 })
	out, said := filepath.Join(s.Dir, "follow.jsonl"), filepath.Join(s.Dir, "follow.said")
	follow, err := s.Spawn("follow", "sh", "-c", "exec env TAPWALL_SERVER=unix:"+s.Socket()+" "+s.tw.Bin+
		" observe --since 1h -f -o json --verdict denied --to-port 5101-5110 --not --from-port 1 > "+out+" 2> "+said)
	must(t, err)
	defer lab.Kill(follow)
	has := func(port int) func() bool {
		return func() bool {
			_, ports := linesOf(t, out)
			return slices.Contains(ports, port)
		}
	}
	lab.Eventually(t, 5*time.Second, "what was is printed", has(5101))
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5102)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5200) // is not asked for
	lab.Eventually(t, 5*time.Second, "what comes is printed", has(5102))

	s.tw.Kill()
	lab.Eventually(t, 5*time.Second, "the follower says that the stream broke", func() bool {
		text, err := os.ReadFile(said)
		return err == nil && strings.Contains(string(text), "the stream broke, trying again")
	})
	must(t, s.tw.Start())
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5103)
	lab.Eventually(t, 15*time.Second, "what comes after the restart is printed", has(5103))
	text, err := os.ReadFile(said)
	must(t, err)
	if !strings.Contains(string(text), "the stream goes on where it broke") || !strings.Contains(string(text), "coverage: ") {
		t.Errorf("the follower said:\n%s", text)
	}
	ids, ports := linesOf(t, out)
	if want := slices.Clone(ids); !slices.IsSorted(ids) || len(slices.Compact(want)) != len(ids) || slices.Contains(ports, 5200) {
		t.Errorf("the follower printed %v of %v", ids, ports)
	}
	asked := s.events("--all", "--verdict", "DENIED", "--to-port", "5101-5110")
	if len(asked) != len(ids) {
		t.Errorf("it printed %d events, the record has %d", len(ids), len(asked))
	}
}

// Every name of an endpoint finds its events, every word that is printed is taken, and what is not meant is left out.
func TestObserveFilters(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	_, err := s.Vsctl("set", "Interface", "vm1", "external_ids:iface-id=9f1c", "external_ids:vm-uuid=6a1f")
	must(t, err)
	s.apply(loggedPolicy + "---\nkind: Endpoint\nname: web1\nspec: {match: {port: vm1}, labels: {app: web}}\n")
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv6, 5003)
	lab.Eventually(t, 5*time.Second, "all three are recorded", func() bool {
		return len(s.events("--type", "allow")) > 0 && len(s.events("--to-port", "5002")) > 0 && len(s.events("--to-port", "5003")) > 0
	})
	all := len(s.events("--all", "--type", "verdict"))
	from := len(s.events("--all", "--type", "verdict", "--from", "vm1"))
	if from == 0 || from == all {
		t.Fatalf("%d of %d events are from vm1", from, all)
	}
	for _, flags := range []string{"--from web1", "--from 9f1c", "--from 6a1f", "--from " + s.vm[1].IPv4,
		"--from-label app=web", "--from-label app",
		"--not --from vm3", "--not -6", "-4", "--ip-version 4", "--to-port 5001-5002", "--not --to-port 5003-6000",
		"--from-ip 10.77.0.1/32", "--from-mac " + s.vm[1].MAC} {
		if n := len(s.events(append([]string{"--all", "--type", "verdict"}, strings.Fields(flags)...)...)); n != from {
			t.Errorf("%s finds %d events, want %d", flags, n, from)
		}
	}
	denied := len(s.events("--all", "--verdict", "DROPPED"))
	for _, flags := range []string{"--verdict denied", "--type deny", "--drop-reason policy_denied", "--not --verdict ALLOWED --type verdict",
		"--type verdict --rule web/no-telnet,default-deny", "--tcp-flags SYN --verdict DENIED --bridge br0 --traffic-direction INGRESS",
		"--type verdict --ct-state new --not --type allow"} {
		if n := len(s.events(append([]string{"--all"}, strings.Fields(flags)...)...)); n != denied || n == 0 {
			t.Errorf("%s finds %d events, want %d", flags, n, denied)
		}
	}
	for _, format := range []string{"table", "dict", "csv", "ek"} {
		if out := s.tapwall("observe", "--to-port", "5002", "-o", format); !strings.Contains(out, "5002") ||
			!strings.Contains(out, s.vm[1].IPv4) {
			t.Errorf("-o %s:\n%s", format, out)
		}
	}
}

// Counts are those of the events, in memory and spool, and top shows live who is denied what.
func TestObserveAggregate(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.apply(loggedPolicy)
	for range 3 {
		s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	}
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5003)
	lab.Eventually(t, 5*time.Second, "all are recorded", func() bool {
		return len(s.events("--to-port", "5003")) > 0 && len(s.events("--to-port", "5001")) > 0
	})
	want := map[string]int64{}
	asked := s.events("--all", "--type", "verdict", "--policy", "web")
	for _, e := range asked {
		want[e.Tapwall.Source.Name+" "+sprintf("%d", e.Destination.Port)+" "+e.Tapwall.Verdict]++
	}
	var sum event.Summary
	out := s.tapwall("observe", "--aggregate", "src,dport,verdict", "--policy", "web", "-o", "json")
	must(t, json.Unmarshal([]byte(out[strings.IndexByte(out, '{'):]), &sum)) // behind the line that says where it is from
	for _, g := range sum.Rows {
		if n := want[strings.Join(g.Values, " ")]; n != g.Events || n == 0 {
			t.Errorf("%v: %d events, want %d", g.Values, g.Events, n)
		}
	}
	if sum.Total.Events < int64(len(asked)) || len(sum.Rows) != len(want) || sum.Others.Events != 0 {
		t.Errorf("%+v of %d events in %v", sum, len(asked), want)
	}

	denials := s.datagrams(s.vm[1], s.vm[2], 5004, 20*time.Millisecond)
	var top struct {
		event.Summary
		Lost int64
	}
	lab.Eventually(t, 10*time.Second, "top shows the denials", func() bool {
		must(t, json.Unmarshal([]byte(s.tapwall("top", "--once", "-o", "json", "--type", "deny", "--by", "src,dport")), &top))
		return len(top.Rows) > 0 && top.Rows[0].Values[0] == "vm1" && top.Rows[0].Values[1] == "5004" && top.Rows[0].Denied >= 10
	})
	denials.Stop()
	if out := s.tapwall("top", "--once"); !strings.Contains(out, "CONNECTIONS/S") || !strings.Contains(out, "denied/s") {
		t.Errorf("top prints\n%s", out)
	}
}
