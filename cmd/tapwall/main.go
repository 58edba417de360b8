// Tapwall gives any Open vSwitch host virtual taps, a stateful firewall and a record of every verdict. `tapwall serve` runs it; all other
// commands talk to a running one.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/internal/build"
)

// The exit codes, as documented in `tapwall help exit-codes`.
const (
	exitFailed       = 1
	exitUsage        = 2
	exitEventsLost   = 3
	exitNotInstalled = 4
	exitUnhealthy    = 5
	exitDifferent    = 6
)

// exitError ends the program with a code of its own. A nil Err prints nothing: what there was to say has been said.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *exitError) Unwrap() error { return e.Err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newRoot().ExecuteContext(ctx)
	if err == nil {
		return
	}
	code := exitFailed
	var e *exitError
	if errors.As(err, &e) {
		code = e.Code
	}
	if e == nil || e.Err != nil {
		fmt.Fprintln(os.Stderr, "tapwall:", strings.TrimSpace(err.Error()))
	}
	os.Exit(code)
}

// global holds the flags of every command that talks to a server.
type global struct {
	server, token, caFile string
}

func (g *global) client() (*client.Client, error) {
	return client.New(g.server, client.Options{Token: g.token, CAFile: g.caFile, UserAgent: "tapwall/" + build.Version()})
}

func newRoot() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "tapwall",
		Short: "Virtual taps, a stateful firewall and a record of every verdict for any Open vSwitch",
		Long: `tapwall gives an Open vSwitch host virtual taps (mirrors), a stateful firewall, and a live record of every verdict.

"tapwall serve" runs it beside Open vSwitch. Every other command talks to a running one, by its unix socket unless --server or
TAPWALL_SERVER says otherwise.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w (see %s --help)", err, c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&g.server, "server", env("TAPWALL_SERVER", "unix:/run/tapwall/tapwall.sock"), "where tapwall serve listens: unix:PATH, http://HOST:PORT or https://HOST:PORT")
	f.StringVar(&g.token, "token", "", "bearer token for a TCP server (better: TAPWALL_TOKEN, which does not show in process lists)")
	f.StringVar(&g.caFile, "ca-file", "", "certificates that an https server's is verified with, instead of the system's")
	root.PersistentPreRun = func(*cobra.Command, []string) {
		if g.token == "" {
			g.token = os.Getenv("TAPWALL_TOKEN")
		}
	}
	root.AddCommand(newServe(), newApply(g), newDiff(g), newGet(g), newDescribe(g), newDelete(g), newMirror(g), newObserve(g), newFlows(g),
		newStatus(g), newVersion(g), &cobra.Command{
			Use:   "exit-codes",
			Short: "What the exit codes mean",
			Long: `0  success
1  failure: the message says why
2  wrong usage
3  observe --fail-on-loss: events are missing
4  --wait: written, but not installed in time, or refused by the switch
5  status: something is wrong
6  diff: there are differences`,
		})
	return root
}

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// exactly is cobra.ExactArgs with a message that says what is missing.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s needs %s (see %s --help)", c.CommandPath(), what, c.CommandPath())
		}
		return nil
	}
}
