package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// fileFlags say where documents are.
type fileFlags struct {
	files     []string
	recursive bool
}

func (d *fileFlags) flags(c *cobra.Command, verb string) {
	c.Flags().StringArrayVarP(&d.files, "filename", "f", nil, "file, directory, or - for standard input, to "+verb+" (repeatable)")
	c.Flags().BoolVarP(&d.recursive, "recursive", "R", false, "directories with all below them")
	if err := c.MarkFlagFilename("filename", extensions()...); err != nil {
		panic(err) // the flag is not defined: a mistake in this program
	}
}

// extensions are those of the files of a directory that are read.
func extensions() []string { return []string{"yaml", "yml", "json"} }

// documents are those of several files in one stream.
type documents struct {
	stream    []byte
	resources []policy.Resource
	first     []int // number in the stream of the first document of each file, from 1
	files     []string
}

// where tells for a document's number in the stream which file it came from.
func (d *documents) where(document int) string {
	name := d.files[0]
	for i, f := range d.files {
		if d.first[i] <= document {
			name = f
		}
	}
	return name
}

// read joins the files, the .yaml, .yml and .json files of directories, and standard input ("-").
func (d *fileFlags) read(stdin io.Reader) (*documents, error) {
	files, err := d.expand()
	if err != nil {
		return nil, err
	}
	out := &documents{files: files}
	var stream bytes.Buffer
	for _, f := range files {
		out.first = append(out.first, len(out.resources)+1)
		var b []byte
		if f == "-" {
			b, err = io.ReadAll(stdin)
		} else {
			b, err = os.ReadFile(f)
		}
		if err != nil {
			return nil, err
		}
		docs, err := policy.Load(bytes.NewReader(b))
		var faults policy.Faults
		if errors.As(err, &faults) {
			// Every fault of the file, with its name, before anything is sent.
			return nil, inFile(f, faults)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		for _, d := range docs {
			y, err := policy.EncodeYAML(d.Resource)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f, err)
			}
			if len(out.resources) > 0 {
				stream.WriteString("---\n")
			}
			stream.Write(y)
			out.resources = append(out.resources, d.Resource)
		}
	}
	if len(out.resources) == 0 {
		return nil, fmt.Errorf("there is no document in %s", strings.Join(files, ", "))
	}
	out.stream = stream.Bytes()
	return out, nil
}

// expand lists the files that are meant.
func (d *fileFlags) expand() (files []string, err error) {
	if len(d.files) == 0 {
		return nil, usage("-f says what to read: a file, a directory, or - for standard input")
	}
	for _, p := range d.files {
		if p == "-" {
			files = append(files, p)
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, p)
			continue
		}
		n := len(files)
		below := 0 // files of a kind that is read, in directories that are not
		err = filepath.WalkDir(p, func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case e.IsDir() || !slices.Contains(extensions(), strings.TrimPrefix(filepath.Ext(path), ".")):
			case d.recursive || filepath.Dir(path) == filepath.Clean(p):
				files = append(files, path)
			default:
				below++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(files) == n {
			hint := ""
			if below > 0 {
				hint = " (but directories below do: -R)"
			}
			return nil, fmt.Errorf("%s holds no .yaml, .yml or .json file%s", p, hint)
		}
	}
	return files, nil
}

func inFile(file string, faults policy.Faults) error {
	var b strings.Builder
	b.WriteString(event.Escape(file) + fmt.Sprintf(" has %d fault(s), nothing was written", len(faults)))
	for _, f := range faults {
		b.WriteString("\n  " + event.Escape(f.String()))
	}
	return errors.New(b.String())
}

// atFile adds the file to faults that the server found.
func atFile(err error, where func(int) string) error {
	var p *client.Problem
	if !errors.As(err, &p) || len(p.Errors) == 0 {
		return err
	}
	for i := range p.Errors {
		if p.Errors[i].Parameter != "" {
			continue // of the request, not of a document
		}
		p.Errors[i].Detail += " (" + where(max(p.Errors[i].Document, 1)) + ")"
		p.Errors[i].Line = 0 // of the joined stream, which nobody has seen
	}
	return err
}
