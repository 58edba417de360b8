package host

import (
	"fmt"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// usageSteps are the shares of a limit, in per cent, from which on it is spoken of, so that a warning changes seldom.
var usageSteps = []int{100, 95, 90, 80}

// limitWarnings are about what will soon be used up.
func (w *firewall) limitWarnings() []policy.Warning {
	var out []policy.Warning
	for _, u := range w.usage {
		if text := nearing(u); text != "" {
			out = append(out, policy.Warning{Code: wall.WarnLimitNear, Message: fmt.Sprintf("bridge %s: %s", w.cfg.Name, text)})
		}
	}
	return out
}

// limits says what is limited and what happens at the limit; see wall.Firewall.Usage.
var limits = map[string]string{
	"class-numbers":        "class numbers: endpoints for which there is none are cut off",
	"address-numbers":      "address numbers: beyond them, rules match prefix by prefix",
	"service-numbers":      "service numbers: beyond them, rules match port by port",
	"egress-priorities":    "priorities of egress rules: policies for which there is none fail",
	"ingress-priorities":   "priorities of ingress rules: policies for which there is none fail",
	"egress-conjunctions":  "egress rules with long lists that should apply to one endpoint: each costs first packets time",
	"ingress-conjunctions": "ingress rules with long lists that should apply to one endpoint: each costs first packets time",
}

// nearing says how much of a limit is in use; "" = there is enough left.
func nearing(u wall.Use) string {
	if !u.Near() {
		return ""
	}
	for _, step := range usageSteps {
		if u.Used*100 >= u.Max*step {
			return fmt.Sprintf("%d %% or more are in use of the %d %s", step, u.Max, limits[u.Limit])
		}
	}
	return ""
}
