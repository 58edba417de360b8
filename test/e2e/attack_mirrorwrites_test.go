package e2e

import (
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// api is a client of the unix socket that keeps its connections.
func (s *stage) api() *http.Client {
	c := s.HTTP(30 * time.Second)
	t := c.Transport.(*http.Transport)
	t.DisableKeepAlives, t.MaxIdleConnsPerHost = false, 32
	return c
}

// call returns the status of an answer, 0 = there was none.
func call(c *http.Client, method, path, body string) int {
	req, err := http.NewRequest(method, "http://tapwall"+path, strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Many write, start, stop and delete the same mirrors at once, and tapwall is killed again and again while they do. Nobody gets an answer
// that blames tapwall, and what is written last is what the switch has, and nothing else.
func TestAttack_MirrorRaces(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	good := s.datagrams(s.vm[1], s.vm[2], 5001, 5*time.Millisecond)
	s.running(good)
	forms := []string{
		`{"sources": [{"port": "vm1"}], "targets": [{"port": {"name": "ids%d", "create": true}}]}`,
		`{"sources": [{"port": "vm1"}], "filter": {"default": "accept"}, "targets": [{"port": {"name": "ids%d", "create": true}}]}`,
		`{"sources": [{"bridge": "br0"}], "sample": {"maxPacketsPerSecond": 100}, "targets": [{"port": {"name": "ids%d", "create": true}}, ` +
			`{"pcap": {"file": "f%[1]d"}}]}`,
		`{"sources": [{"port": "vm2"}], "stopAfter": {"duration": "1s"}, "targets": [{"port": {"name": "ids%d", "create": true}}]}`,
		`{"sources": [{"port": "vm1"}], "targets": [{"rspan": {"vlan": 10%d, "acknowledgeFlooding": true}}]}`,
	}
	var faults, answers atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			c := s.api()
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := rand.N(3)
				path, doc := sprintf("/v1/mirrors/m%d", i), sprintf(forms[rand.N(len(forms))], i)
				wait := []string{"", "?wait=installed&timeout=2s"}[rand.N(2)]
				code := 0
				switch rand.N(5) {
				case 0, 1:
					code = call(c, "PUT", path+wait, `{"spec": `+doc+`}`)
				case 2:
					code = call(c, "DELETE", path+wait, "")
				case 3:
					code = call(c, "POST", path+"/start"+wait, "")
				case 4:
					code = call(c, "PATCH", path+wait, `{"spec": {"enabled": false}}`)
				}
				if answers.Add(1); code == 500 {
					faults.Add(1)
				}
				if code == 0 {
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	for range whole(20, 4) {
		time.Sleep(1500 * time.Millisecond)
		s.tw.Kill()
		must(t, s.tw.Start())
	}
	close(stop)
	all.Wait()
	t.Logf("%d answers", answers.Load())
	if n := faults.Load(); n != 0 || answers.Load() < 100 {
		t.Errorf("%d of %d answers were 500", n, answers.Load())
	}
	s.tapwall("delete", "mirror", "m0", "m1", "m2", "--ignore-not-found", "--wait")
	lab.Eventually(t, 10*time.Second, "nothing is left", func() bool {
		rows, err := s.Vsctl("--bare", "--columns=name", "list", "mirror")
		bridges, err2 := s.Vsctl("list-br")
		ports, err3 := s.Vsctl("list-ports", "br0")
		floods, err4 := s.Vsctl("get", "bridge", "br0", "flood_vlans")
		left := strings.TrimSpace(rows) + strings.ReplaceAll(strings.TrimSpace(bridges), "br0", "") +
			strings.Trim(strings.TrimSpace(floods), "[]") + strings.Join(strings.Fields(ports), "")
		return err == nil && err2 == nil && err3 == nil && err4 == nil && left == "vm1vm2"
	})
	s.force("kind: Mirror\nname: last\nspec: {sources: [{port: vm1}], filter: {default: accept}, " +
		"targets: [{port: {name: last0, create: true}}]}\n")
	if n := s.copied(s.capture("last0"), func() { s.ping3(s.vm[1], s.vm[2]) }); n != 6 {
		t.Errorf("afterwards %d copies of 6", n)
	}
	s.lossless(good, "production")
	log, err := os.ReadFile(filepath.Join(s.Dir, "tapwall.log"))
	must(t, err)
	if strings.Contains(string(log), "panic") {
		t.Error("tapwall panicked")
	}
}

// As many writes of one mirror as a client can send: tapwall stays small and answers others, a mirror beside it misses nothing, and in the
// end the last write is in force.
func TestAttack_MirrorWriteStorm(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: calm\nspec: {sources: [{port: vm1}], filter: {rules: [{action: accept, protocol: icmp}]}, " +
		"targets: [{port: {name: calm0, create: true}}]}\n")
	calm := s.capture("calm0")
	before := s.resident()
	var writes, refused atomic.Int64
	var slowest time.Duration
	end := time.Now().Add(whole(60*time.Second, 5*time.Second))
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			c := s.api()
			for i := 0; time.Now().Before(end); i++ {
				doc := sprintf(`{"spec": {"sources": [{"port": "vm1"}], "snaplen": %d, "filter": {"default": "accept"}, `+
					`"targets": [{"port": {"name": "storm0", "create": true}}]}}`, 100+(4*i+w)%1000)
				if code := call(c, "PUT", "/v1/mirrors/storm", doc); code == 200 || code == 201 {
					writes.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	copies := s.copied(calm, func() {
		c := s.api()
		for time.Now().Before(end) {
			start := time.Now()
			if code := call(c, "GET", "/v1/mirrors/calm", ""); code != 200 {
				t.Errorf("GET during the storm: %d", code)
			}
			slowest = max(slowest, time.Since(start))
			s.ping3(s.vm[1], s.vm[2])
		}
		all.Wait()
	})
	pings := copies / 6
	s.force("kind: Mirror\nname: storm\nspec: {sources: [{port: vm1}], snaplen: 60, targets: [{port: {name: storm0, create: true}}]}\n")
	c := s.capture("storm0")
	s.ping3(s.vm[1], s.vm[2])
	settle()
	cut := c.Frames(lab.ICMP)
	if len(cut) != 6 || len(cut[0].Data) != 60 {
		t.Errorf("after the storm %d copies of 6", len(cut))
	}
	t.Logf("%d writes, %d refused, the slowest read %v, %d kB more, %d pings of three copied", writes.Load(), refused.Load(),
		slowest.Round(time.Millisecond), s.resident()-before, pings)
	if refused.Load()*20 > writes.Load() {
		t.Errorf("%d of %d writes without preconditions were refused", refused.Load(), writes.Load()+refused.Load())
	}
	if copies%6 != 0 || copies == 0 {
		t.Errorf("the mirror beside it made %d copies, which is not six of each ping of three", copies)
	}
	if grown := s.resident() - before; grown > 100<<10 {
		t.Errorf("tapwall grew by %d KiB", grown)
	}
}
