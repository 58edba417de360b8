package wall

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// Members returns the endpoints of a class, sorted; nil = there is none with this number.
func (f *Firewall) Members(class uint16) []string {
	if c := f.classes.byNumber[class]; c != nil {
		return c.keys()
	}
	return nil
}

// fewSelectors is how many selectors are spelled of a list of many.
const fewSelectors = 3

// few spells a list of selectors.
func few(texts []string) string {
	if n := len(texts) - fewSelectors; n > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:fewSelectors], ", "), n)
	}
	return strings.Join(texts, ", ")
}

func textsOf(xs []*choice) []string {
	out := make([]string, len(xs))
	for i, x := range xs {
		out[i] = x.text
	}
	slices.Sort(out)
	return out
}

func namesOf(xs []*choice) []Choice {
	var out []Choice
	for _, x := range xs {
		out = append(out, Choice{hexHash(x.hash), x.text})
	}
	return out
}

// texts says what the numbers of services stand for.
func (s *services) texts() map[uint16]string {
	parts := map[uint16][]policy.ProtoPorts{}
	for _, g := range s.segments {
		in := parts[g.number]
		if len(in) == 0 || in[len(in)-1].Proto != g.proto || g.all {
			in = append(in, policy.ProtoPorts{Proto: g.proto})
		}
		if last := &in[len(in)-1]; !g.all {
			last.Ports = append(last.Ports, g.ports)
		}
		parts[g.number] = in
	}
	out := make(map[uint16]string, len(parts))
	for n, in := range parts {
		var texts []string
		for _, p := range in {
			texts = append(texts, protoText(p))
		}
		out[n] = strings.Join(texts, "; ")
	}
	return out
}

// protocols spells those that policies name.
var protocols = map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}

func protoText(p policy.ProtoPorts) string {
	name := protocols[p.Proto]
	if name == "" {
		name = "protocol " + strconv.Itoa(int(p.Proto))
	}
	ports := make([]string, len(p.Ports))
	for i, r := range p.Ports {
		ports[i] = r.String()
	}
	return strings.TrimSpace(name + " " + strings.Join(ports, ", "))
}
