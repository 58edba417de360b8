package lab_test

import (
	"testing"

	"github.com/tapwall/tapwall/test/lab"
)

// A lab without tapwall is an ordinary switch: everybody reaches everybody.
func TestLabForwards(t *testing.T) {
	l := lab.Require(t)
	if err := l.AddBridge("br0"); err != nil {
		t.Fatal(err)
	}
	vm1, err := l.AddVM("vm1", "br0", 1)
	if err != nil {
		t.Fatal(err)
	}
	vm2, err := l.AddVM("vm2", "br0", 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{vm2.IPv4, vm2.IPv6} {
		if out, err := vm1.Run("ping", "-c", "2", "-i", "0.2", "-W", "2", addr); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
