package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// recordFigures are the status of the record.
type recordFigures struct {
	Observed, Accepted int64
	Lost               map[string]int64
}

func (s *stage) record() recordFigures {
	s.t.Helper()
	var st struct{ Events recordFigures }
	out, _ := s.tw.Run("status", "-o", "json") // the exit code tells of problems, the document is complete
	must(s.t, json.Unmarshal([]byte(out), &st))
	return st.Events
}

func (r recordFigures) lost() (n int64) {
	for _, k := range r.Lost {
		n += k
	}
	return n
}

// Somebody deletes, changes or makes anew the meter under which denied packets are copied. It comes back within seconds, limits again,
// and is told of; the wall stands all along, and the account of what was lost tells nothing false.
func TestFault_F09_MeterRestored(t *testing.T) {
	t.Parallel()
	s := ground(t, 2)
	s.wall("--events-per-second", "20")
	s.applyUncached(strings.Replace(loggedPolicy, "protocol: tcp, ports: [\"5002\"]", "protocol: udp, ports: [\"6002\"]", 1))
	shut := s.inbox(s.vm[2], 6002)
	good := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	s.running(good)
	flood := s.datagrams(s.vm[1], s.vm[2], 6002, time.Millisecond)
	lab.Eventually(t, 10*time.Second, "the meter withholds copies", func() bool { return s.record().Lost["packet_in_meter"] > 100 })
	meters := func() string {
		out, err := s.Ofctl("dump-meters", "br0")
		must(t, err)
		all := strings.Split(out, "meter=")[1:]
		for i := range all {
			all[i] = strings.TrimSpace(all[i]) // behind the last one there is no empty line
		}
		slices.Sort(all) // the switch lists them as they lie in a hash table, where a new one may have another place
		return strings.Join(all, "\n")
	}
	want := meters()
	for _, change := range [][][]string{
		{{"del-meters", "br0"}},
		{{"mod-meter", "br0", "meter=31261,pktps,burst,stats,band=type=drop,rate=100000,burst_size=100000"}},
		{{"del-meter", "br0", "meter=31261"}, {"add-meter", "br0", "meter=31261,pktps,burst,stats,band=type=drop,rate=20,burst_size=40"}},
	} {
		lost := s.metric(`tapwall_meters_lost_total{bridge="br0"}`)
		for first := 0; first < len(change); {
			for i, args := range change {
				if _, err := s.Ofctl(args[0], args[1], args[2:]...); err == nil {
					first = i + 1
				} else if i == 0 || !strings.Contains(err.Error(), "METER_EXISTS") {
					t.Fatal(err)
				} else {
					first = 0 // tapwall was faster than the second command
				}
			}
		}
		took := lab.Eventually(t, 10*time.Second, "restored and counted", func() bool {
			return s.metric(`tapwall_meters_lost_total{bridge="br0"}`) > lost && meters() == want
		})
		t.Logf("%v: restored after %v", change, took)
		time.Sleep(300 * time.Millisecond) // copies on their way, and the meter's burst
		before, sent := s.record().Accepted, flood.Sent()
		lab.Eventually(t, 20*time.Second, "the flood goes on", func() bool { return flood.Sent() > sent+600 })
		if n, of := s.record().Accepted-before, int64(flood.Sent()-sent); n > of/3 {
			t.Errorf("%v: %d events of %d denied packets: the meter does not limit", change, n, of)
		}
	}
	flood.Stop()
	s.lossless(good, "what is allowed")
	if n := shut.count(""); n > 0 {
		t.Errorf("%d denied datagrams passed", n)
	}
	out := s.tapwall("observe", "--action", "meters-restored", "--all")
	if !strings.Contains(out, "meters of tapwall, changed by somebody else, were put right") {
		t.Errorf("the record does not tell of the meters:\n%s", out)
	}
	time.Sleep(4 * time.Second) // until a deficit would be told as lost
	r := s.record()
	if all := r.Accepted + r.lost(); all > int64(flood.Sent())+int64(good.Sent())+100 {
		t.Errorf("%d events and %v lost of %d denied packets: false losses", r.Accepted, r.Lost, flood.Sent())
	}
	if r.Observed != r.Accepted+r.lost() {
		t.Errorf("observed %d is not accepted %d + lost %d", r.Observed, r.Accepted, r.lost())
	}
	s.unchangedByRestart()
}

// A meter that is there before tapwall is set to what tapwall wants, which is logged.
func TestFault_F09_MeterThereBefore(t *testing.T) {
	t.Parallel()
	s := ground(t, 1)
	_, err := s.Vsctl("set-fail-mode", "br0", "secure") // or Open vSwitch wipes the meters when tapwall sets it
	must(t, err)
	_, err = s.Ofctl("add-meter", "br0", "meter=31249,kbps,band=type=drop,rate=7")
	must(t, err)
	s.wall()
	out, err := s.Ofctl("dump-meters", "br0")
	must(t, err)
	if !strings.Contains(out, "meter=31249 pktps burst stats") || !strings.Contains(out, "rate=10000") || strings.Contains(out, "rate=7") {
		t.Errorf("meters: %s", out)
	}
	log, err := os.ReadFile(filepath.Join(s.Dir, "tapwall.log"))
	must(t, err)
	if text := string(log); !strings.Contains(text, `msg="meter set"`) || !strings.Contains(text, "rate=7") {
		t.Errorf("the log does not tell of the meter:\n%s", text)
	}
	if n := s.metric(`tapwall_record_degraded{bridge="br0"}`); n != 0 {
		t.Errorf("the record is said to be degraded: %g", n)
	}
}
