package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
)

// capturing is one invocation of capture, or of one of the commands below it.
type capturing struct {
	client.CaptureQuery
	to packetOutput
}

func newCapture(g *global) *cobra.Command {
	var x capturing
	c := &cobra.Command{
		Use:   "capture MIRROR [-w FILE]",
		Short: "Packets of mirrors: live, from buffers, in files",
		Long: `Write the packets that a mirror copies, as they come, as pcapng: to standard output, for a program that reads them, or into a
file of this machine that only you may read. The mirror has a target that tapwall reads (buffer, pcap, events), or a port that it makes.
With --since, what its buffer holds comes first.

It ends with Ctrl-C, when nobody reads what it writes, when the mirror stops, or by --count and --for. At the end it says how many
packets were written and how many were dropped, because they came faster than they were taken; the mirror goes on.`,
		Example: `  tapwall capture web -w - | wireshark -k -i -
  tapwall capture web -w web.pcapng --for 30s
  tapwall capture web --since -30s --count 1000 | tshark -r -`,
		RunE: func(c *cobra.Command, _ []string) error { return x.live(c, g) },
	}
	x.flags(c, g, "-")
	x.sinceFlag(c, "begin with what the buffer holds since then: -30s, 5m, or a time")
	c.Flags().IntVar(&x.Packets, "count", 0, "end after so many packets; 0 = do not")
	durationFlag(c, &x.Duration, "for", "for how long; 0 = until something else ends it", "30s", "1m", "10m")
	free(c, "count")
	c.AddCommand(newCaptureList(g), newCaptureSave(g), newCaptureGet(g))
	return c
}

func newCaptureList(g *global) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "list [MIRROR]",
		Short: "List whose packets can be had, and the files that there are",
		Example: `  tapwall capture list
  tapwall capture list web -o json`,
		Args:              between(0, 1, "one mirror at most"),
		ValidArgsFunction: g.completeMirror,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.allow("table", "json", "yaml"); err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			all, err := cl.Captures(c.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			if o.format != "table" {
				return o.print(c.OutOrStdout(), map[string]any{"items": all})
			}
			return listCaptures(c.OutOrStdout(), all)
		},
	}
	o.flag(c, "table", "json", "yaml")
	return c
}

func listCaptures(w io.Writer, all []client.Capture) error {
	var rows, files [][]string
	for _, x := range all {
		state := "idle"
		switch {
		case x.Problem != "":
			state = x.Problem
		case x.Reading:
			state = "reading"
		case x.Live:
			state = "live"
		}
		held := "-"
		if x.Oldest != nil {
			held = fmt.Sprintf("%d since %s", x.HeldPackets, localTime(*x.Oldest))
		}
		rows = append(rows, []string{x.Mirror, x.Host, x.Kind, dash(x.Port), fmt.Sprint(x.Packets), fmt.Sprint(x.Dropped + x.Lost), held, state})
		for _, f := range x.Files {
			files = append(files, []string{x.Mirror, x.Host, f.Name, fmt.Sprint(f.Bytes), localTime(f.Until)})
		}
	}
	if err := table(w, "MIRROR HOST TARGET PORT PACKETS LOST HELD STATE", rows); err != nil || files == nil {
		return err
	}
	printf(w, "\n")
	return table(w, "MIRROR HOST FILE BYTES UNTIL", files)
}

func localTime(t time.Time) string { return t.Local().Format(time.DateTime) }

func newCaptureSave(g *global) *cobra.Command {
	var x capturing
	c := &cobra.Command{
		Use:   "save MIRROR [--since -30s]",
		Short: "Save what the buffer of a mirror holds",
		Long: `Write what the target buffer of a mirror holds into a pcapng file of this machine that only you may read: what went by before the
event that mattered. The file appears when it is complete. Its name is MIRROR-TIME.pcapng unless -w says another one.`,
		Example: `  tapwall capture save web --since -30s
  tapwall capture save web --since 2026-12-01T08:00:00Z --until 2026-12-01T08:05:00Z -w morning.pcapng`,
		RunE: func(c *cobra.Command, _ []string) error {
			x.to.path = cmp.Or(x.to.path, x.Mirror+"-"+time.Now().Format("20060102-150405")+".pcapng")
			return x.packets(c, g, func(ctx context.Context, from io.Reader) (n tally, err error) {
				err = x.to.whole(func(w io.Writer) error {
					n, err = copyPackets(ctx, w, from)
					return err
				})
				return n, err
			})
		},
	}
	x.flags(c, g, "")
	x.sinceFlag(c, "not older than this: -30s, 5m, or a time")
	c.Flags().StringVar(&x.Until, "until", "", "older than this, likewise")
	completeFlag(c, "until", fixed("now", "-10s", "-1m"))
	return c
}

func newCaptureGet(g *global) *cobra.Command {
	var x capturing
	c := &cobra.Command{
		Use:     "get MIRROR FILE [-w FILE]",
		Short:   "Fetch a file that the target pcap of a mirror has written",
		Example: "  tapwall capture get web web_00001_20261129120000.pcapng",
		RunE: func(c *cobra.Command, args []string) error {
			file := args[len(args)-1]
			x.to.path = cmp.Or(x.to.path, filepath.Base(file))
			cl, err := x.prepare(c, g)
			if err != nil {
				return err
			}
			defer cl.Close()
			from, err := cl.CaptureFile(c.Context(), x.Mirror, x.Host, file)
			if err != nil {
				return err
			}
			defer from.Close()
			var n int64
			err = x.to.whole(func(w io.Writer) error {
				n, err = io.Copy(w, from)
				return err
			})
			if err != nil {
				return brokenOff(err)
			}
			return printf(c.ErrOrStderr(), "%d bytes%s written\n", n, x.to.where())
		},
	}
	x.flags(c, g, "")
	c.Args = func(c *cobra.Command, args []string) error {
		if x.Mirror == "" && len(args) == 2 {
			x.Mirror, args = args[0], args[1:]
		}
		if x.Mirror == "" || len(args) != 1 {
			return usage("%s needs a mirror and a file, as tapwall capture list has them (see %s --help)", short(c), c.CommandPath())
		}
		return nil
	}
	c.ValidArgsFunction = func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if x.Mirror == "" && len(args) == 0 {
			return g.completeMirror(c, args, typed)
		}
		var out []string
		g.ask(func(ctx context.Context, cl *client.Client) {
			all, err := cl.Captures(ctx, cmp.Or(x.Mirror, strings.Join(args, "")))
			for i := 0; err == nil && i < len(all); i++ {
				for _, f := range all[i].Files {
					out = append(out, f.Name)
				}
			}
		})
		return offer(out), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// flags are those of commands that write packets of one mirror, which is an argument or a flag.
func (x *capturing) flags(c *cobra.Command, g *global, path string) {
	fl := c.Flags()
	fl.StringVar(&x.Mirror, "mirror", "", "name of the mirror; it may also be the argument")
	fl.StringVar(&x.Host, "host", "", "id of the host; needed where the mirror copies on several")
	fl.StringVarP(&x.to.path, "write", "w", path, "file to write; - = standard output")
	fl.BoolVar(&x.to.force, "force", false, "replace a file that is there")
	completeFlag(c, "mirror", g.completeNamesOf("mirrors", ""))
	completeFlag(c, "host", g.completeHosts)
	c.ValidArgsFunction = g.completeMirror
	c.Args = func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == 1 && x.Mirror == "":
			x.Mirror = args[0]
		case len(args) > 0 || x.Mirror == "":
			return usage("%s needs one mirror, like: %[1]s web (see %s --help)", short(c), c.CommandPath())
		}
		return nil
	}
}

func (x *capturing) sinceFlag(c *cobra.Command, usage string) {
	c.Flags().StringVar(&x.Since, "since", "", usage)
	completeFlag(c, "since", fixed("-10s", "-30s", "-1m", "-5m"))
}

// prepare checks what was asked for.
func (x *capturing) prepare(c *cobra.Command, g *global) (*client.Client, error) {
	for _, t := range []struct {
		flag string
		text *string
	}{{"since", &x.Since}, {"until", &x.Until}} {
		if _, err := timeOf(t.flag, t.text, time.Now()); err != nil {
			return nil, err
		}
	}
	if x.Packets < 0 {
		return nil, usage("--count %d: want a number of packets", x.Packets)
	}
	x.to.out = unscreened(c.OutOrStdout())
	if err := x.to.check(); err != nil {
		return nil, err
	}
	return g.client()
}

// packets asks for packets, has them written, and says what became of them.
func (x *capturing) packets(c *cobra.Command, g *global, write func(context.Context, io.Reader) (tally, error)) error {
	cl, err := x.prepare(c, g)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := x.to.whileRead(c.Context())
	defer cancel(nil)
	from, err := cl.Packets(ctx, x.CaptureQuery)
	switch {
	case errors.Is(err, errUnread):
		return nil
	case err != nil:
		return err
	}
	defer from.Close()
	n, err := write(ctx, from)
	if err != nil {
		return brokenOff(err)
	}
	return n.tell(c.ErrOrStderr(), x.to.where())
}

func (x *capturing) live(c *cobra.Command, g *global) error {
	x.Follow = true
	return x.packets(c, g, func(ctx context.Context, from io.Reader) (tally, error) {
		w, closed, err := x.to.stream()
		if err != nil {
			return tally{}, err
		}
		n, err := follow(ctx, w, from)
		return n, errors.Join(err, closed())
	})
}

// follow copies packets as they come. To interrupt it, or to stop reading, is the usual way to end it.
func follow(ctx context.Context, w io.Writer, from io.Reader) (tally, error) {
	n, err := copyPackets(ctx, w, from)
	if errors.Is(err, context.Canceled) || errors.Is(err, errUnread) || errors.Is(err, syscall.EPIPE) {
		err = nil
	}
	return n, err
}

// brokenOff explains the end of a stream that is not whole.
func brokenOff(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the packets broke off: the server ended the connection (%w)", err)
	}
	return err
}
