// Package contract holds the running program to its own OpenAPI description: schemathesis derives requests from it, valid and invalid
// ones, and compares the answers with it. The switch is a private one without traffic, so that what is written is also installed.
package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl/oftest"
)

const token = "contract-0123456789abcdef"

// tool finds schemathesis, which `make contract` installs. It skips the test without it, and fails it instead if the environment says
// CI=true.
func tool(t *testing.T) string {
	t.Helper()
	st, err := filepath.Abs("../../.cache/contract/bin/st")
	if err == nil {
		_, err = os.Stat(st)
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("schemathesis is needed when CI=true (make contract): %v", err)
		}
		t.Skipf("schemathesis is needed (make contract): %v", err)
	}
	return st
}

// serve runs the program over a private switch and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	bin := os.Getenv("TAPWALL_BIN")
	if bin == "" {
		bin = filepath.Join(dir, "tapwall")
		if out, err := exec.Command("go", "build", "-o", bin, "github.com/tapwall/tapwall/cmd/tapwall").CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	ovs := oftest.StartOVS(t, oftest.OVSOptions{})
	ovs.AddBridge("br0", "netdev")
	for i := range 3 {
		name := fmt.Sprintf("vm%d", i+1)
		ovs.Vsctl("add-port", "br0", name, "--", "set", "Interface", name, "type=dummy", "external_ids:iface-id="+name,
			fmt.Sprintf("external_ids:attached-mac=\"52:54:00:00:00:0%d\"", i+1), "external_ids:app=web")
	}
	tokens, log := filepath.Join(dir, "token"), filepath.Join(dir, "log")
	if err := os.WriteFile(tokens, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", "--ovsdb", ovs.DBAddr(), "--data-dir", filepath.Join(dir, "data"), "--listen", "tcp:127.0.0.1:0",
		"--token-file", tokens,
		"--bridge", "br0=owned", "--log-level", "info")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("tapwall ended: %v", err)
		}
		_ = out.Close()
		if text, err := os.ReadFile(log); t.Failed() && err == nil {
			t.Logf("the log of tapwall ends:\n%s", text[max(0, len(text)-4000):])
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(log)
		if _, address, ok := strings.Cut(string(text), "address="); err == nil && ok {
			address, _, _ = strings.Cut(address, "\n")
			if status, _ := get(address + "/readyz"); status == http.StatusOK {
				return address
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("tapwall is not ready:\n%s", text)
		}
	}
}

func get(url string) (int, []byte) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, nil
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, b
}

// run has schemathesis derive some requests for each operation of a description.
func run(t *testing.T, st, address, description string, more ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // of a busy machine; a quiet one needs a tenth
	defer cancel()
	config, err := filepath.Abs("schemathesis.toml")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--config-file", config, "run", description, "--url", address, "-H", "Authorization: Bearer " + token,
		"--no-color",
		"--seed", "1", "--generation-database", "none", "--suppress-health-check", "all", "--request-timeout", "20", "--exclude-operation-id",
		"follow-events"}, more...)
	cmd := exec.CommandContext(ctx, st, args...)
	cmd.Dir = t.TempDir() // where it keeps what failed, to try that first the next time
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestContract(t *testing.T) {
	st, address := tool(t), serve(t)
	status, text := get(address + "/openapi.json")
	if status != http.StatusOK {
		t.Fatalf("no description: %d", status)
	}
	file := filepath.Join(t.TempDir(), "openapi.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	// Every operation by its examples and by chance, and what only reads or deletes by every value at a boundary: for bodies those are too
	// many.
	for _, phases := range [][]string{
		{"--phases", "examples,fuzzing", "--max-examples", "15"},
		{"--phases", "coverage", "--include-method", "GET", "--include-method", "DELETE"},
	} {
		if out, err := run(t, st, address, file, append(phases, "--continue-on-failure")...); err != nil {
			t.Errorf("%v: %v\n%s", phases, err, out)
		}
	}

	// Control: a description that promises something else is caught.
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	schemas["Health"].(map[string]any)["properties"].(map[string]any)["status"] = map[string]any{"type": "integer"}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, st, address, file, "--phases", "examples,coverage", "--include-operation-id", "healthz"); err == nil ||
		!strings.Contains(out, "violates schema") {
		t.Errorf("a wrong description passes (%v):\n%s", err, out)
	}
}
