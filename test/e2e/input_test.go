package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// request sends one raw request to the API and returns status and body.
func (s *stage) request(method, path, body string, header ...string) (int, string) {
	s.t.Helper()
	client := s.HTTP(20 * time.Second)
	req, err := http.NewRequest(method, "http://tapwall"+path, strings.NewReader(body))
	must(s.t, err)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	must(s.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(s.t, err)
	return resp.StatusCode, string(b)
}

// Bad input is answered with every fault by its place, and changes nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(restartPolicy)
	before := strings.Join(s.flows(), "\n")
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		says               []string
	}{
		"unknown field": {"PUT", "/v1/policies/x", `{"spec":{"appliesTo":[{"port":"vm1"}],"ingres":[]}}`, 422, []string{"/spec/ingres"}},
		"wrong CIDR and port": {"PUT", "/v1/policies/x", `{"spec":{"appliesTo":[{"port":"vm1"}],"ingress":[{"name":"a","action":"allow",` +
			`"from":[{"cidr":"10.1.0.0/33"}],"services":[{"protocol":"tcp","ports":["70000"]}]}]}}`, 422,
			[]string{"/spec/ingress/0/from/0/cidr", "10.1.0.0/33", "/spec/ingress/0/services/0/ports/0", "70000"}},
		"unknown group": {"PUT", "/v1/policies/x",
			`{"spec":{"appliesTo":[{"port":"vm1"}],"ingress":[{"name":"a","action":"allow","from":[{"group":"nobody"}]}]}}`, 422,
			[]string{"/spec/ingress/0/from/0/group", "nobody"}},
		"duplicate rule names": {"PUT", "/v1/policies/x",
			`{"spec":{"appliesTo":[{"port":"vm1"}],"ingress":[{"name":"a","action":"allow"},{"name":"a","action":"deny"}]}}`, 422,
			[]string{"/spec/ingress/1/name"}},
		"a VLAN and a port": {"PUT", "/v1/mirrors/x",
			`{"spec":{"sources":[{"port":"vm1"}],"targets":[{"port":{"name":"ids0"}},{"rspan":{"vlan":7,"acknowledgeFlooding":true}}]}}`,
			422, []string{"\"/spec/targets\"", "does not go with rspan"}},
		"no JSON":           {"PUT", "/v1/policies/x", `{"spec":`, 400, []string{"line 1"}},
		"other name":        {"PUT", "/v1/policies/x", `{"name":"y","spec":{"appliesTo":[{"port":"vm1"}]}}`, 422, []string{"/name"}},
		"unknown path":      {"GET", "/v1/polices", ``, 404, nil},
		"wrong method":      {"POST", "/v1/policies/x", `{}`, 405, nil},
		"unknown parameter": {"GET", "/v1/policies?lable=x", ``, 422, []string{"lable"}},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := s.request(c.method, c.path, c.body)
			if status != c.status {
				t.Errorf("status %d, want %d: %s", status, c.status, body)
			}
			var problem struct{ Title string }
			if json.Unmarshal([]byte(body), &problem) != nil || problem.Title == "" {
				t.Errorf("not a problem document: %s", body)
			}
			for _, part := range c.says {
				if !strings.Contains(body, part) {
					t.Errorf("the answer does not name %s: %s", part, body)
				}
			}
		})
	}
	t.Run("10 MB body", func(t *testing.T) {
		if status, body := s.request("PUT", "/v1/policies/x", `{"spec":{"appliesTo":[{"port":"`+strings.Repeat("a", 10<<20)+
			`"}]}}`); status != 413 {
			t.Errorf("status %d: %.200s", status, body)
		}
	})
	t.Run("stale ETag", func(t *testing.T) {
		doc := `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`
		if status, body := s.request("PUT", "/v1/groups/g", doc); status != 201 {
			t.Fatalf("status %d: %s", status, body)
		}
		if status, _ := s.request("PUT", "/v1/groups/g", doc, "If-Match", `"1"`); status != 412 {
			t.Errorf("a stale If-Match gives %d", status)
		}
	})
	if after := strings.Join(s.flows(), "\n"); after != before {
		t.Error("refused input changed the flow table")
	}
}

// The documents of examples/ are valid and do what they say.
func TestExamples(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	for _, vm := range s.vm[1:] {
		must(t, s.Serve(vm, 80))
	}
	s.tapwall("apply", "--wait", "-f", "../../examples")
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 80)
	s.mustNotConnect(s.vm[2], s.vm[1].IPv4, 80)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv6, 80)
	if out := s.tapwall("diff", "-f", "../../examples"); strings.Contains(out, "+ ") || strings.Contains(out, "- ") {
		t.Errorf("a diff of what is applied is not empty:\n%s", out)
	}
}

// What is wrong with the surroundings is said in a sentence that tells what to do.
func TestBadSurroundings(t *testing.T) {
	t.Parallel()
	s := open(t, 1)
	serve := func(args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, s.tw.Bin, append([]string{"serve"}, args...)...).CombinedOutput()
		if err == nil || ctx.Err() != nil {
			t.Errorf("serve %v did not refuse (%v):\n%s", args, ctx.Err(), out)
		}
		return string(out)
	}
	dir := t.TempDir()
	t.Run("two on one host", func(t *testing.T) {
		out := serve("--ovsdb", s.DB(), "--data-dir", dir, "--listen", "unix:"+filepath.Join(dir, "s"))
		if !strings.Contains(out, "another tapwall") {
			t.Error(out)
		}
	})
	t.Run("two on one data directory", func(t *testing.T) {
		out := serve("--ovsdb", "unix:"+filepath.Join(dir, "none.sock"), "--data-dir", filepath.Join(s.Dir, "data"), "--listen", "unix:"+
			filepath.Join(dir, "s"))
		if !strings.Contains(out, "in use by another tapwall") {
			t.Error(out)
		}
	})
	t.Run("corrupt store", func(t *testing.T) {
		bad := filepath.Join(dir, "bad")
		snap := filepath.Join(bad, "store", "member", "snap")
		must(t, os.MkdirAll(snap, 0o700))
		must(t, os.WriteFile(filepath.Join(snap, "db"), bytes.Repeat([]byte("garbage"), 4096), 0o600))
		out := serve("--ovsdb", "unix:"+filepath.Join(dir, "none.sock"), "--data-dir", bad, "--listen", "unix:"+filepath.Join(dir, "s"))
		if !strings.Contains(out, "damaged") {
			t.Error(out)
		}
		if b, err := os.ReadFile(filepath.Join(snap, "db")); err != nil || !bytes.HasPrefix(b, []byte("garbage")) {
			t.Errorf("the damaged file was touched: %v", err)
		}
	})
	t.Run("TCP without token", func(t *testing.T) {
		if out := serve("--ovsdb", "unix:"+filepath.Join(dir, "none.sock"), "--data-dir", filepath.Join(dir, "d1"), "--listen",
			"tcp:127.0.0.1:0"); !strings.Contains(out, "token") {
			t.Error(out)
		}
	})
	t.Run("bad flags", func(t *testing.T) {
		if out := serve("--bridge", "br0=mine"); !strings.Contains(out, "owned") {
			t.Error(out)
		}
		if out := serve("--config", filepath.Join(dir, "no.yaml")); !strings.Contains(out, "no.yaml") {
			t.Error(out)
		}
		must(t, os.WriteFile(filepath.Join(dir, "c.yaml"), []byte("bridge:\n- name: br0\n"), 0o600))
		if out := serve("--config", filepath.Join(dir, "c.yaml")); !strings.Contains(out, "bridge") {
			t.Error(out)
		}
	})
	t.Run("no server", func(t *testing.T) {
		out, err := exec.Command(s.tw.Bin, "get", "policies", "--server", "unix:"+filepath.Join(dir, "none")).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "tapwall serve") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("missing OVS", func(t *testing.T) {
		l := *s
		cmd, err := l.Spawn("tapwall-alone", s.tw.Bin, "serve", "--ovsdb", "unix:"+filepath.Join(dir, "none.sock"), "--bridge", "br0=owned",
			"--data-dir", filepath.Join(dir, "alone"), "--listen", "unix:"+filepath.Join(dir, "alone.sock"))
		must(t, err)
		defer lab.Kill(cmd)
		lab.Eventually(t, 10*time.Second, "the status says that OVS is missing", func() bool {
			out, err := exec.Command(s.tw.Bin, "status", "--server", "unix:"+filepath.Join(dir, "alone.sock")).CombinedOutput()
			return err != nil && strings.Contains(string(out), "none.sock")
		})
		// The API works meanwhile; what is written waits.
		out, err := exec.Command("sh", "-c", "echo 'kind: Group\nname: g\nspec: {members: [{cidr: 10.0.0.0/8}]}' | "+s.tw.Bin+
			" apply -f - --server unix:"+filepath.Join(dir, "alone.sock")).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// A write that was acknowledged survives the process, however it ends.
func TestKillDuringWrites(t *testing.T) {
	t.Parallel()
	s := open(t, 1)
	acknowledged := map[string]bool{}
	for round := range 3 {
		stop := time.AfterFunc(time.Duration(200+round*150)*time.Millisecond, s.tw.Kill)
		for i := 0; ; i++ {
			name := sprintf("g-%d-%d", round, i)
			status, err := s.tryPut("/v1/groups/"+name, `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`)
			if err != nil {
				break
			}
			if status == 201 {
				acknowledged[name] = true
			}
		}
		stop.Stop()
		must(t, s.tw.Start())
	}
	var list struct {
		Items []struct{ Name string }
		Next  string
	}
	have := map[string]bool{}
	for next := ""; ; next = list.Next {
		list.Items, list.Next = nil, ""
		_, body := s.request("GET", "/v1/groups?limit=1000&next="+next, "")
		must(t, json.Unmarshal([]byte(body), &list))
		for _, g := range list.Items {
			have[g.Name] = true
		}
		if list.Next == "" {
			break
		}
	}
	lost := 0
	for name := range acknowledged {
		if !have[name] {
			lost++
		}
	}
	if lost > 0 || len(acknowledged) < 10 {
		t.Errorf("%d of %d acknowledged writes are lost", lost, len(acknowledged))
	}
	t.Logf("%d acknowledged writes over 3 kills", len(acknowledged))
}

func (s *stage) tryPut(path, body string) (int, error) {
	client := s.HTTP(5 * time.Second)
	req, err := http.NewRequest("PUT", "http://tapwall"+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
