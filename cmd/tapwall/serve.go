package main

import (
	"errors"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/internal/app"
	"github.com/tapwall/tapwall/internal/build"
	"github.com/tapwall/tapwall/internal/host"
)

// gcPercent is by how many percent the heap of serve may grow before it is collected, unless the environment says otherwise (GOGC). tapwall
// shares its machine with guests, and nearly all that it has lives for ever: at Go's own 100, as much again would stand by for garbage.
// What that takes and gives is in docs/benchmarks.md.
const gcPercent = 40

func newServe() *cobra.Command {
	var flags app.Options
	var config string
	var bridges []string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run tapwall beside Open vSwitch",
		Long: `Run tapwall for the Open vSwitch of this host until it is told to stop. Flows and mirrors stay in force when it stops; a ` +
			`restart that finds
nothing changed writes nothing.

A bridge that is not named is left alone. An owned bridge's flows and fail mode belong to tapwall; on a guest bridge it makes mirrors ` +
			`only.`,
		Example: `  tapwall serve --bridge br0=owned
  tapwall serve --config /etc/tapwall/tapwall.yaml --log-level debug`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			o := app.Options{Version: build.Version(), PickupWindow: app.DefaultPickupWindow, SpoofGrace: app.DefaultSpoofGrace}
			if config != "" {
				if err := o.LoadFile(config); err != nil {
					return err
				}
			}
			named, err := parseBridges(bridges)
			if err != nil {
				return err
			}
			// A flag replaces what the file says.
			if len(named) > 0 {
				o.Bridges = named
			}
			over := func(name string, set func()) {
				if c.Flags().Changed(name) {
					set()
				}
			}
			over("data-dir", func() { o.DataDir = flags.DataDir })
			over("store", func() { o.Store = flags.Store })
			over("ovsdb", func() { o.OVSDB = flags.OVSDB })
			over("listen", func() { o.Listen = flags.Listen })
			over("token-file", func() { o.TokenFile = flags.TokenFile })
			over("tls-cert", func() { o.TLSCert = flags.TLSCert })
			over("tls-key", func() { o.TLSKey = flags.TLSKey })
			over("log-level", func() { o.LogLevel = flags.LogLevel })
			over("log-format", func() { o.LogFormat = flags.LogFormat })
			over("events-per-second", func() { o.EventsPerSecond = flags.EventsPerSecond })
			o.TakeOver = flags.TakeOver
			over("pickup-window", func() { o.PickupWindow = flags.PickupWindow })
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			return app.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&config, "config", "", "configuration file; flags win over it")
	f.StringVar(&flags.DataDir, "data-dir", app.DefaultDataDir, "where the embedded store and the event files are")
	f.StringSliceVar(&flags.Store, "store", nil, "endpoints of an external etcd, https://HOST:2379,… (default: embedded)")
	f.StringVar(&flags.OVSDB, "ovsdb", app.DefaultOVSDB, "the Open vSwitch database: unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT")
	f.StringArrayVar(&bridges, "bridge", nil, "a bridge to manage, NAME=owned or NAME=guest (repeatable)")
	f.StringArrayVar(&flags.Listen, "listen", nil, "where to serve the API, unix:PATH or tcp:HOST:PORT (repeatable; default "+
		app.DefaultListen+")")
	f.StringVar(&flags.TokenFile, "token-file", "", "file with the bearer token that TCP clients must send")
	f.StringVar(&flags.TLSCert, "tls-cert", "", "certificate of TCP listeners (needed beyond loopback)")
	f.StringVar(&flags.TLSKey, "tls-key", "", "its key")
	f.StringVar(&flags.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&flags.LogFormat, "log-format", "text", "text or json")
	f.Uint32Var(&flags.EventsPerSecond, "events-per-second", 10000,
		"most connections a second, and most denied packets, that a bridge copies to the record; the rest is counted as lost")
	f.DurationVar(&flags.PickupWindow, "pickup-window", app.DefaultPickupWindow,
		"for how long TCP connections from before a restart of the switch are taken up; 0s = not at all")
	f.BoolVar(&flags.TakeOver, "take-over", false,
		"take the hosts from another tapwall, which then changes nothing more, and the primary role on owned bridges from any controller")
	for flag, of := range map[string]values{
		"log-level": fixed("debug", "info", "warn", "error"), "log-format": fixed("text", "json"),
		"ovsdb": fixed(app.DefaultOVSDB, "tcp:", "ssl:"), "listen": fixed(app.DefaultListen, "tcp:127.0.0.1:"),
	} {
		completeFlag(c, flag, of)
	}
	free(c, "store", "bridge", "events-per-second", "pickup-window")
	if err := errors.Join(c.MarkFlagDirname("data-dir"), c.MarkFlagFilename("config", "yaml", "yml")); err != nil {
		panic(err) // a flag is not defined: a mistake in this program
	}
	return c
}

func parseBridges(in []string) ([]host.BridgeConfig, error) {
	var out []host.BridgeConfig
	for _, s := range in {
		name, mode, ok := strings.Cut(s, "=")
		if !ok || name == "" || mode != string(host.Owned) && mode != string(host.Guest) {
			return nil, usage("--bridge %s: want NAME=owned or NAME=guest", s)
		}
		out = append(out, host.BridgeConfig{Name: name, Mode: host.Mode(mode)})
	}
	return out, nil
}

func newVersion(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and of the server",
		Args:  noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			printf(c.OutOrStdout(), "client: %s (%s)\n", build.Version(), build.Read().Go)
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			// The version of this program is what was asked for first; a server that is away is no failure.
			if s, err := cl.Status(c.Context()); err != nil {
				printf(c.OutOrStdout(), "server: not reached at %s\n", g.server)
			} else {
				printf(c.OutOrStdout(), "server: %s\n", s.Version)
			}
			return nil
		},
	}
}
