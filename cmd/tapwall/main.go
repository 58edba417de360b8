// Tapwall gives any Open vSwitch host virtual taps, a stateful firewall and a record of every verdict. `tapwall serve` runs it; all other
// commands talk to a running one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/internal/app"
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
	exitInterrupted  = 130
)

// exitError ends the program with a code of its own. A nil Err prints nothing: what there was to say has been said.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

func (e *exitError) Unwrap() error { return e.Err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends what does not end by itself
	args := os.Args[1:]
	if isExtcap(os.Args[0]) {
		args = append([]string{"extcap"}, args...)
	}
	os.Exit(run(ctx, args, os.Stdin, os.Stdout, os.Stderr))
}

// run is the program: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(&screen{stdout})
	root.SetErr(&screen{stderr})
	c, err := root.ExecuteContextC(ctx)
	code := exitCode(ctx, root == c, err)
	switch {
	case code == exitInterrupted:
		_ = printf(root.ErrOrStderr(), "tapwall: interrupted\n")
	case err != nil && err.Error() != "":
		// Some errors have several lines, which are ours; who makes an error of foreign text escapes it there.
		_, _ = io.WriteString(root.ErrOrStderr(), "tapwall: "+strings.TrimSpace(err.Error())+"\n")
		var p *client.Problem
		if errors.As(err, &p) && p.Status == http.StatusUnauthorized {
			_ = printf(root.ErrOrStderr(), "Put the token of the server's --token-file into TAPWALL_TOKEN.\n")
		}
	}
	return code
}

// exitCode maps an error to the program's exit code. atRoot says that no command was found to run, which is wrong usage whatever the error.
func exitCode(ctx context.Context, atRoot bool, err error) int {
	var e *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	case atRoot:
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}

// defaultServer is where `tapwall serve` listens by default.
// notANumber is how package strconv says it.
var notANumber = regexp.MustCompile(`strconv\.\w+: parsing "[^"]*": invalid syntax`)

const defaultServer = app.DefaultListen

// global holds the flags of every command that talks to a server.
type global struct {
	server, token, caFile string
	useEnvironment        func() // fills in what no flag has set
}

// client makes the client of a command. Each host that a list lacks is named once on standard error, also when the list is asked for
// again and again.
func (g *global) client() (*client.Client, error) {
	var told sync.Map
	return g.clientThat(func(what string) {
		if _, again := told.LoadOrStore(what, true); !again {
			_ = printf(os.Stderr, "tapwall: %s\n", what)
		}
	})
}

func (g *global) clientThat(onProblem func(string)) (*client.Client, error) {
	g.useEnvironment()
	c, err := client.New(g.server, client.Options{Token: g.token, CAFile: g.caFile, UserAgent: "tapwall/" + build.Version(),
		OnProblem: onProblem})
	if err != nil {
		return nil, usage("%w", err)
	}
	return c, nil
}

func newRoot() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "tapwall",
		Short: "Virtual taps, a stateful firewall and a record of every verdict for any Open vSwitch",
		Long: `tapwall gives an Open vSwitch host virtual taps (mirrors), a stateful firewall, and a live record of every verdict.

"tapwall serve" runs it beside Open vSwitch. Every other command talks to a running one, by its unix socket unless --server or the
environment variable TAPWALL_SERVER says otherwise.`,
		Example: `  tapwall serve --bridge br0=owned
  tapwall apply --wait -f examples/
  tapwall observe -f --verdict DROPPED`,
		Version:       build.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%s (see %s --help)", notANumber.ReplaceAllString(err.Error(), "want a whole number"), c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&g.server, "server", defaultServer,
		"where tapwall serve listens: unix:PATH, http://HOST:PORT or https://HOST:PORT (or TAPWALL_SERVER)")
	f.StringVar(&g.token, "token", "", "bearer token for a TCP server (better: TAPWALL_TOKEN, which does not show in process lists)")
	f.StringVar(&g.caFile, "ca-file", "", "certificates that an https server's is verified with, instead of the system's")
	free(root, "server", "token")
	g.useEnvironment = func() {
		if v := os.Getenv("TAPWALL_SERVER"); v != "" && !f.Changed("server") {
			g.server = v
		}
		if g.token == "" {
			g.token = os.Getenv("TAPWALL_TOKEN")
		}
	}
	serve, get := newServe(), newGet(g)
	hideClientFlags(serve)
	for _, k := range kinds() {
		get.SuggestFor = append(get.SuggestFor, k.singular, k.plural) // tapwall policies
	}
	exitCodes := &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `0    success
1    failure: the message says why; also if several names failed for different reasons
2    wrong usage
3    observe --fail-on-loss: events are missing
4    --wait: written, but not in force: not installed in time, refused by the switch, Degraded,
     or Pending, as a policy that selects nobody on any host is; the message says what is missing
5    status, export status: something is wrong
6    diff: there are differences
130  interrupted`,
	}
	hideClientFlags(exitCodes)
	root.AddCommand(serve, newApply(g), newConfirm(g), newDiff(g), get, newDescribe(g), newLint(g), newDelete(g), newEdit(g), newExplain(g),
		newGroup(g),
		newMirror(g), newTap(g), newCapture(g), newExtcap(g), newQuarantine(g), newExport(g),
		newObserve(g), newTop(g), newFlows(g), newTrace(g), newConnections(g),
		newStatus(g), newVersion(g), exitCodes)
	strict(root)
	return root
}

// strict makes those commands that cobra adds refuse what they do not know, as all others do.
func strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args = func(c *cobra.Command, args []string) error {
				if _, rest, err := c.Root().Find(args); err != nil || len(rest) > 0 {
					return usage("there is no command %q (see tapwall --help)", strings.Join(args, " "))
				}
				return nil
			}
		case "completion":
			c.Args = noArgs("; it is completion bash, zsh, fish or powershell")
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
}

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// hideClientFlags keeps flags that a command has no use for out of its help.
func hideClientFlags(c *cobra.Command) {
	show := c.HelpFunc()
	c.SetHelpFunc(func(c *cobra.Command, args []string) {
		for _, name := range []string{"server", "token", "ca-file"} {
			_ = c.InheritedFlags().MarkHidden(name) // fails for a flag that is not there, which is as good
		}
		show(c, args)
	})
}

// noArgs refuses arguments; hint says what was perhaps meant.
func noArgs(hint string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage("%s takes no argument like %q%s (see %s --help)", short(c), args[0], hint, c.CommandPath())
		}
		return nil
	}
}

// between wants that many arguments; what says which.
func between(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usage("%s needs %s (see %s --help)", short(c), what, c.CommandPath())
		}
		return nil
	}
}

// short is the command without the program's name, which is before every message already.
func short(c *cobra.Command) string { return strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ") }
