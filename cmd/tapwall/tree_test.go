package main

import (
	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// decodeTree reads YAML, and so JSON.
func decodeTree(text []byte) (v any, err error) {
	err = yaml.Unmarshal(text, &v)
	return v, err
}

// flagNames lists the flags of a command that take a value, inherited ones too.
func flagNames(c *cobra.Command) (out []string) {
	see := func(f *pflag.Flag) {
		if f.Name != "help" && f.Name != "server" && f.NoOptDefVal == "" {
			out = append(out, f.Name)
		}
	}
	c.LocalFlags().VisitAll(see)
	c.InheritedFlags().VisitAll(see)
	return out
}
