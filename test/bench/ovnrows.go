package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// ovnLab is an OVN with n dummy ports, each a logical port of the switch sw and, by its labels, a member of a port group for each label
// and for each pair of labels.
func ovnLab(n int) (_ *lab.Lab, o *ovn, err error) {
	l, err := dummyLab()
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	var commands [][]string
	groups, sets := map[string][]string{}, map[string][]string{}
	for at := 0; at < n; at += 200 {
		var args []string
		for i := at; i < min(at+200, n); i++ {
			args = append(args, dummyPort(i, nil)...)
			port, ls, ip := fmt.Sprintf("if-d%d", i), usualLabels(i), fmt.Sprintf("10.78.%d.%d", i>>8, i&255)
			commands = append(commands, []string{"lsp-add", "sw", port}, []string{"lsp-set-addresses", port, dummyMAC(i) + " " + ip})
			for _, g := range []string{ls["app"], ls["app"] + ls["tier"]} {
				groups[g], sets[g] = append(groups[g], port), append(sets[g], ip)
			}
		}
		if _, err := l.Vsctl(args...); err != nil {
			return nil, nil, err
		}
	}
	if o, err = startOVN(l); err != nil {
		return nil, nil, err
	}
	for g, ports := range groups {
		commands = append(commands, append([]string{"pg-add", g}, ports...), setOf(g, sets[g]))
	}
	return l, o, o.run(commands...)
}

// setOf makes an address set as_NAME.
func setOf(name string, addresses []string) []string {
	return []string{"create", "address_set", "name=as_" + name, `addresses="` + strings.Join(addresses, `","`) + `"`}
}

// ovnClasses writes what usualPolicy says as ACLs of port groups, peers as address sets, for a tenth of the endpoints and policies: with
// all of them OVN was not through after two minutes.
func ovnClasses() (l line, err error) {
	const endpoints, policies = manyEndpoints / 10, manyPolicies / 10
	b, o, err := ovnLab(endpoints)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var acls [][]string
	for n := range policies {
		for r := range 10 {
			from := fmt.Sprintf("10.%d.%d.0/24", n/250, n%250)
			peer := fmt.Sprintf("$as_a%d", (n+r+1)%10)
			switch r % 3 {
			case 0:
				from = fmt.Sprintf("%st%d", peer, r%2)
			case 1:
				from = peer
			}
			acls = append(acls, []string{"--may-exist", "acl-add", fmt.Sprintf("a%d", n%10), "to-lport", "1000",
				fmt.Sprintf("outport == @a%d && ip4.src == %s && tcp.dst == %d", n%10, from, 1000+(n*10+r)%500), "allow-related"})
		}
	}
	start := time.Now()
	if err := o.run(acls...); err != nil {
		return l, err
	}
	took := time.Since(start)
	flows, err := flowCount(b, "br0")
	if err != nil {
		return l, err
	}
	rss, err := o.memory()
	if err != nil {
		return l, err
	}
	theirs, err := memory(b.VswitchdPid())
	return atMost(fmt.Sprintf("a tenth, %d x %d x 10, in OVN", endpoints, policies), fmt.Sprintf("%v, %d flows, RSS %d / %d MiB",
		took.Round(10*time.Millisecond), flows, rss,
		theirs), "", took, 0), err
}

// ovnSet lets rules ACLs of one port use an address set of so many addresses, and then adds and removes changed of them, ten times.
func ovnSet(addresses []string, rules, changed int) (installed, added, removed time.Duration, err error) {
	l, err := switchLab()
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if _, err := l.AddVM("vm1", "br0", 1); err != nil {
		return 0, 0, 0, err
	}
	o, err := startOVN(l)
	if err != nil {
		return 0, 0, 0, err
	}
	if err := o.ports("vm1"); err != nil {
		return 0, 0, 0, err
	}
	commands := [][]string{setOf("g", addresses)}
	for i := range rules {
		commands = append(commands, []string{"acl-add", "sw", "to-lport", "1000", fmt.Sprintf(
			`outport == "if-vm1" && ip4.src == $as_g && tcp.dst == %d`, 3000+i), "allow-related"})
	}
	start := time.Now()
	if err := o.run(commands...); err != nil {
		return 0, 0, 0, err
	}
	installed = time.Since(start)
	var up, down []time.Duration
	for n := range 10 {
		var more []string
		for i := range changed {
			more = append(more, fmt.Sprintf("10.201.%d.%d", n, i))
		}
		for _, c := range []struct {
			verb string
			took *[]time.Duration
		}{{"add", &up}, {"remove", &down}} {
			start := time.Now()
			if err := o.run([]string{c.verb, "address_set", "as_g", "addresses", `"` + strings.Join(more, `","`) + `"`}); err != nil {
				return 0, 0, 0, err
			}
			*c.took = append(*c.took, time.Since(start))
		}
	}
	return installed, median(up), median(down), nil
}

// ovnSetLine says what ovnSet found.
func ovnSetLine(addresses []string, rules, changed int) (line, error) {
	installed, added, removed, err := ovnSet(addresses, rules, changed)
	return atMost(fmt.Sprintf("OVN, %d addresses, %d ACLs, +-%d", len(addresses), rules, changed), fmt.Sprintf(
		"installed %v, added p50 %v, removed p50 %v", installed.Round(10*time.Millisecond), added.Round(100*time.Microsecond),
		removed.Round(100*time.Microsecond)), "", added, 0), err
}

// ovnHosts are so many addresses.
func ovnHosts(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("10.%d.%d.%d", 210+i>>16, i>>8&255, i&255))
	}
	return out
}
