package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/internal/build"
)

// extcapPrefix precedes the name of a mirror in that of its interface in Wireshark. The interface without a mirror asks for one.
const extcapPrefix = "tapwall"

// isExtcap reports whether the program was called as one of Wireshark's, by a link in its folder of extcap programs.
func isExtcap(program string) bool { return strings.HasSuffix(filepath.Base(program), "extcap") }

// extcap is one invocation of extcap: what Wireshark asks for (https://www.wireshark.org/docs/man-pages/extcap.html).
type extcap struct {
	interfaces, dlts, config, capture bool
	iface, version, filter, fifo      string
	capturing
}

func newExtcap(g *global) *cobra.Command {
	var x extcap
	c := &cobra.Command{
		Use:   "extcap",
		Short: "Mirrors as interfaces of Wireshark, which calls this",
		Long: `Make the mirrors whose packets can be followed interfaces of Wireshark and tshark, which call this program in their folder of
extcap programs: that which tshark -G folders names, or WIRESHARK_EXTCAP_DIR, which they do not heed as root. Put a link there whose
name ends in extcap:

  ln -s "$(command -v tapwall)" ~/.local/lib/wireshark/extcap/tapwall-extcap

or a script, which may name another server:

  #!/bin/sh
  exec tapwall --server https://tap1.example:8443 extcap "$@"`,
		Example: `  tapwall extcap --extcap-interfaces
  WIRESHARK_EXTCAP_DIR=~/extcap tshark -i tapwall-web -c 10`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error { return x.run(c, g) },
	}
	fl := c.Flags()
	fl.BoolVar(&x.interfaces, "extcap-interfaces", false, "list interfaces")
	fl.BoolVar(&x.dlts, "extcap-dlts", false, "list link types of an interface")
	fl.BoolVar(&x.config, "extcap-config", false, "list what an interface can be told")
	fl.BoolVar(&x.capture, "capture", false, "write packets to --fifo")
	fl.StringVar(&x.iface, "extcap-interface", "", "the interface: tapwall-MIRROR, or tapwall with --mirror")
	fl.StringVar(&x.version, "extcap-version", "", "of Wireshark")
	fl.Lookup("extcap-version").NoOptDefVal = "?"
	fl.StringVar(&x.filter, "extcap-capture-filter", "", "refused: a mirror has a filter of its own")
	fl.StringVar(&x.fifo, "fifo", "", "where to write packets")
	fl.StringVar(&x.Mirror, "mirror", "", "the mirror, of the interface tapwall")
	fl.StringVar(&x.Host, "host", "", "id of the host; needed where the mirror copies on several")
	x.sinceFlag(c, "begin with what the buffer of the mirror holds since then: -30s, 5m, or a time")
	completeFlag(c, "mirror", g.completeNamesOf("mirrors", ""))
	completeFlag(c, "host", g.completeHosts)
	free(c, "extcap-interface", "extcap-version", "extcap-capture-filter")
	return c
}

func (x *extcap) run(c *cobra.Command, g *global) error {
	w := c.OutOrStdout()
	if x.interfaces {
		return listInterfaces(c, g)
	}
	mirror, known := strings.CutPrefix(x.iface, extcapPrefix)
	mirror = strings.TrimPrefix(mirror, "-")
	if !known {
		return usage("there is no interface %q: extcap is for Wireshark to call (see tapwall extcap --help)", x.iface)
	}
	switch {
	case x.dlts:
		return printf(w, "dlt {number=1}{name=EN10MB}{display=Ethernet}\n")
	case x.config:
		if mirror == "" {
			printf(w, "arg {number=0}{call=--mirror}{display=Mirror}{tooltip=Its name}{type=string}{required=true}\n")
		}
		printf(w, "arg {number=1}{call=--since}{display=Begin}{tooltip=With what the buffer of the mirror holds since then, "+
			"as in 30s; empty = now}{type=string}\n")
		printf(w, "arg {number=2}{call=--host}{display=Host}{tooltip=Its id, where the mirror copies on several}{type=string}\n")
		return printf(w, "arg {number=3}{call=--server}{display=Server}{tooltip=unix:PATH or https://HOST:PORT; empty = as usual}{type=string}\n")
	case x.filter != "":
		// Wireshark shows what is printed when it only asks whether a filter is good.
		const why = "choose packets by the filter of the mirror, or by a display filter"
		if !x.capture {
			return printf(w, "%s\n", why)
		}
		return usage("%s", why)
	case !x.capture || x.fifo == "":
		return usage("extcap is for Wireshark to call (see tapwall extcap --help)")
	}
	if mirror != "" {
		x.Mirror = mirror
	}
	if x.Mirror == "" {
		return usage("the interface tapwall needs the name of a mirror")
	}
	fifo, err := os.OpenFile(x.fifo, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer fifo.Close()
	x.to = packetOutput{path: "-", out: fifo}
	x.Follow = true
	return x.packets(c, g, func(ctx context.Context, from io.Reader) (tally, error) { return follow(ctx, fifo, from) })
}

// listInterfaces names the mirrors that can be followed. Without a server that answers soon the interface remains that asks for one:
// Wireshark takes nothing from a program that fails.
func listInterfaces(c *cobra.Command, g *global) error {
	w := c.OutOrStdout()
	printf(w, "extcap {version=%s}{display=tapwall}\n", bare(build.Version()))
	printf(w, "interface {value=%s}{display=tapwall: a mirror by its name}\n", extcapPrefix)
	cl, err := g.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
	defer cancel()
	all, err := cl.Captures(ctx, "")
	listed := map[string]bool{}
	for _, x := range all {
		if x.Live && !listed[x.Mirror] {
			listed[x.Mirror] = true
			printf(w, "interface {value=%s-%s}{display=tapwall: mirror %[2]s}\n", extcapPrefix, bare(x.Mirror))
		}
	}
	if err != nil {
		printf(c.ErrOrStderr(), "tapwall: %s\n", err)
	}
	return nil
}

// bare leaves out what Wireshark reads as the end of a value.
func bare(text string) string { return strings.NewReplacer("{", "", "}", "").Replace(text) }
