package e2e

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// A wait that ends with something not in force is told from one that ends with all in force, and says what is missing; the control is
// the same document once it selects somebody.
func TestFault_F16_WaitEndsPending(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	code := func(err error) int {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode()
		}
		must(t, err)
		return 0
	}
	lonely := strings.ReplaceAll(allowPorts("p", "vm9", "vm1", "5001"), "vm9", "vm-to-be")
	for _, step := range []struct {
		docs string
		args []string
		code int
		say  string
	}{
		{lonely, []string{"apply", "-f", "-"}, 0, "policy/p created"},
		{lonely, []string{"apply", "--wait=accepted", "-f", "-"}, 0, "policy/p unchanged"},
		{lonely, []string{"apply", "--wait", "-f", "-"}, 4, "policy/p is Pending: NoEndpoints, it applies to no endpoint on this host"},
		{"kind: Endpoint\nname: e\nspec: {match: {port: nowhere}, labels: {a: b}}\n", []string{"apply", "--wait=installed", "-f", "-"}, 4,
			"endpoint/e is Pending: NoPort"},
		{"kind: Endpoint\nname: e\nspec: {match: {port: nowhere}, addresses: [192.0.2.1]}\n", []string{"apply", "--wait=installed", "-f", "-"},
			0, "counts as a peer elsewhere"},
		{"kind: Mirror\nname: m\nspec: {sources: [{port: vm1}, {port: gone}], targets: [{port: {name: nosuch}}]}\n", []string{"apply", "--wait",
			"-f", "-"}, 4, "mirror/m is "},
		{"", []string{"mirror", "start", "m", "--wait"}, 4, "mirror/m is "},
		{allowPorts("p", "vm2", "vm1", "5001"), []string{"apply", "--wait", "-f", "-"}, 0, "policy/p updated (Active)"},
	} {
		out, err := s.tw.RunInput(step.docs, step.args...)
		if c := code(err); c != step.code || !strings.Contains(out, step.say) {
			t.Errorf("%q ends with %d, not %d, and says\n%s\nnot %q", step.args, c, step.code, out, step.say)
		}
	}
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5003)
}
