package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

func newEdit(g *global) *cobra.Command {
	var w waitFlags
	c := &cobra.Command{
		Use:   "edit KIND NAME | KIND/NAME",
		Short: "Change a resource in an editor (VISUAL or EDITOR, else vi)",
		Long: `Open a resource in the editor that VISUAL or EDITOR names, and write what was saved. Faults come back into the editor, as ` +
			`comments. Nothing is written
if nothing was changed, or if somebody else changed the resource meanwhile.`,
		Example:           "  EDITOR=nano tapwall edit policy web --wait",
		Args:              between(1, 2, "a kind and a name, like: policy web"),
		ValidArgsFunction: g.completeResources(writable()),
		RunE: func(c *cobra.Command, args []string) error {
			if err := w.check(); err != nil {
				return err
			}
			targets, err := parseTargets(args, parseResourceKind)
			if err != nil {
				return err
			}
			if len(targets) != 1 || len(targets[0].names) != 1 {
				return usage("want KIND NAME, like: policy web")
			}
			k, name := targets[0].kinds[0], targets[0].names[0]
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			old, err := cl.Get(c.Context(), k.resource, name)
			if err != nil {
				return named(err, k, name)
			}
			d, err := edit(c, cl, k, old, w.options())
			if d == nil {
				return err
			}
			printf(c.OutOrStdout(), "%s/%s edited%s\n", k.singular, name, w.state(d.Status))
			return w.outcome(err, waited{k.singular + "/" + name, &d.Status})
		},
	}
	w.flags(c)
	return c
}

// edit lets the user change a document until the server takes it. The result is nil if nothing was written; what was typed is kept in a
// file then.
func edit(c *cobra.Command, cl *client.Client, k *kind, old *client.Document, o client.WriteOptions) (*client.Document, error) {
	text, err := json.Marshal(struct {
		Kind   policy.Kind       `json:"kind"`
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels,omitempty"`
		Spec   json.RawMessage   `json:"spec"`
	}{old.Kind, old.Name, old.Labels, old.Spec})
	if err != nil {
		return nil, err
	}
	shown, err := asYAML(text)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tapwall-edit-")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, k.singular+".yaml") // so that editors know the format
	o.Revision = old.Revision
	header, last := "# Lines that begin with # are left out. Save without a change to leave it as it is.\n", ""
	var fault error
	for {
		if err := os.WriteFile(file, []byte(header+shown), 0o600); err != nil {
			return nil, err
		}
		if err := runEditor(c, file); err != nil {
			return nil, fmt.Errorf("%w; the file is %s", err, file)
		}
		saved, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		now := withoutComments(string(saved))
		switch {
		case last == "" && now == withoutComments(shown), strings.TrimSpace(now) == "":
			printf(c.OutOrStdout(), "%s/%s not changed\n", k.singular, old.Name)
			return nil, os.RemoveAll(dir)
		case now == last:
			return nil, fmt.Errorf("not written, since the faults are still there; the file is %s\n%w", file, fault)
		}
		d, err := writeEdited(c, cl, k, old.Name, []byte(now), o)
		switch {
		case err == nil || errors.Is(err, client.ErrNotInstalled):
			return d, errors.Join(err, os.RemoveAll(dir))
		case errors.Is(err, client.ErrConflict), errors.As(err, new(*client.ConnectError)), c.Context().Err() != nil:
			return nil, fmt.Errorf("%w; what you wrote is in %s", err, file)
		}
		header = "# " + strings.ReplaceAll(err.Error(), "\n", "\n# ") + "\n#\n"
		shown, last, fault = now, now, err
	}
}

func writeEdited(c *cobra.Command, cl *client.Client, k *kind, name string, text []byte, o client.WriteOptions) (*client.Document, error) {
	docs, err := policy.Load(bytes.NewReader(text))
	var faults policy.Faults
	if errors.As(err, &faults) {
		lines := make([]string, len(faults))
		for i, f := range faults {
			lines[i] = event.Escape(f.String())
		}
		return nil, errors.New(strings.Join(lines, "\n"))
	}
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 || docs[0].Resource.Kind() != k.resource || docs[0].Resource.GetMeta().Name != name {
		return nil, fmt.Errorf("this edits %s/%s: kind and name stay, and one document", k.singular, name)
	}
	j, err := policy.EncodeJSON(docs[0].Resource)
	if err != nil {
		return nil, err
	}
	return cl.Put(c.Context(), k.resource, name, j, o)
}

// runEditor runs the user's editor, which may have arguments of its own and so is a shell's business.
func runEditor(c *cobra.Command, file string) error {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	if editor == "" {
		editor = "vi"
	}
	cmd := exec.CommandContext(c.Context(), "sh", "-c", editor+` "$1"`, "sh", file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the editor %q (EDITOR): %w", editor, err)
	}
	return nil
}

func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}
