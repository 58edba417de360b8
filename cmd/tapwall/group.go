package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

func newGroup(g *global) *cobra.Command {
	c := &cobra.Command{Use: "group", Short: "Add and remove members of groups",
		Args: noArgs("; it is group add NAME MEMBER... or group remove NAME MEMBER..."),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(newGroupEdit(g, "add"), newGroupEdit(g, "remove"))
	return c
}

func newGroupEdit(g *global, verb string) *cobra.Command {
	groups := []*kind{kinds()[1]}
	var w waitFlags
	var files []string
	var dryRun bool
	c := &cobra.Command{
		Use:   verb + " NAME [MEMBER...]",
		Short: strings.ToUpper(verb[:1]) + verb[1:] + " members of a group",
		Long: `A member is an address, an address range, or a selector as documents spell it: 192.0.2.7, 198.51.100.0/24, port=tap123,
vm=web1, labels.app=web. In a file there is one on each line; what follows # is a comment.

Only what changes is sent and installed, so this is as fast for a group of 100,000 ranges as for one of ten. What is
a member already is not added again, and what is none need not be removed: both are told and are no errors.`,
		Example: fmt.Sprintf(`  tapwall group %s blocklist 198.51.100.0/24 203.0.113.9 --wait
  tapwall group %[1]s blocklist -f changed.txt`, verb),
		Args: between(1, 1<<20, "the name of a group"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return offer(g.names(groups, args)), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := w.check(); err != nil {
				return err
			}
			members, err := readMembers(args[1:], files, c.InOrStdin())
			if err != nil {
				return err
			}
			if len(members) == 0 && len(files) == 0 {
				return usage("%s needs members, or -f (see %s --help)", short(c), c.CommandPath())
			}
			edit := policy.MemberEdit{Add: members}
			if verb == "remove" {
				edit = policy.MemberEdit{Remove: members}
			}
			if members == nil {
				return printf(c.OutOrStdout(), "group/%s unchanged: no members were given\n", args[0])
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			o := w.options()
			o.DryRun = dryRun
			m, err := cl.EditMembers(c.Context(), args[0], edit, o)
			err = named(err, groups[0], args[0])
			if m == nil || dryRun {
				if err == nil {
					return printf(c.OutOrStdout(), "group/%s can be changed so; nothing was written\n", args[0])
				}
				return err
			}
			if err == nil {
				_ = printf(c.OutOrStdout(), "group/%s %s%s\n", args[0], told(m), w.state(m.Status))
			}
			return w.outcome(err, waited{"group/" + args[0], &m.Status})
		},
	}
	w.flags(c)
	c.Flags().StringArrayVarP(&files, "filename", "f", nil, "file with one member on each line, or - for standard input (repeatable)")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check only, and write nothing")
	if err := c.MarkFlagFilename("filename"); err != nil {
		panic(err) // the flag is not defined: a mistake in this program
	}
	return c
}

// told says in words what came of an edit.
func told(m *client.Members) string {
	var out []string
	for _, x := range []struct {
		n    int
		what string
	}{{m.Added, "added"}, {m.Present, "there already"}, {m.Removed, "removed"}, {m.Absent, "not there"}} {
		if x.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	if len(out) == 0 {
		out = []string{"unchanged"}
	}
	return strings.Join(out, ", ") + "; it has " + count(m.Members, "member")
}

// readMembers reads those of the command line, then those of files.
func readMembers(args, files []string, stdin io.Reader) (out []policy.Selector, err error) {
	for _, text := range args {
		s, err := parseMember(text)
		if err != nil {
			return nil, usage("%w", err)
		}
		out = append(out, s)
	}
	for _, name := range files {
		var b []byte
		if name == "-" {
			b, err = io.ReadAll(stdin)
		} else {
			b, err = os.ReadFile(name)
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(b, []byte("\ufeff"))))
		lines.Buffer(nil, 1<<20)
		for n := 1; lines.Scan(); n++ {
			text, _, _ := strings.Cut(lines.Text(), "#")
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			s, err := parseMember(text)
			if err != nil {
				return nil, fmt.Errorf("%s, line %d: %w", event.Escape(called(name)), n, err)
			}
			out = append(out, s)
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", event.Escape(called(name)), err)
		}
	}
	return out, nil
}

// parseMember reads a member as commands and files spell it.
func parseMember(text string) (policy.Selector, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return policy.Selector{CIDR: netip.PrefixFrom(a, a.BitLen()).String()}, nil
	}
	field, value, ok := strings.Cut(text, "=")
	if !ok {
		if _, err := policy.ParseCIDR(text); err != nil {
			return policy.Selector{}, fmt.Errorf("%s: %w", event.Escape(fmt.Sprintf("%.80q", text)), err)
		}
		return policy.Selector{CIDR: text}, nil
	}
	if key, isLabel := strings.CutPrefix(field, "labels."); isLabel && key != "" {
		return policy.Selector{Labels: map[string]string{key: value}}, nil
	}
	for name, s := range map[string]policy.Selector{"port": {Port: value}, "vm": {VM: value}, "neutronPort": {NeutronPort: value},
		"mac": {MAC: value}, "bridge": {Bridge: value}, "group": {Group: value}, "cidr": {CIDR: value}} {
		if name == field && value != "" {
			return s, nil
		}
	}
	return policy.Selector{}, fmt.Errorf(
		"%s is no member: write an address, an address range, or port=, vm=, neutronPort=, mac=, bridge=, group= or "+
			"labels.KEY= with a value", event.Escape(fmt.Sprintf("%.80q", text)))
}
