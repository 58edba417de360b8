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

// documents are those of several files in one stream, as JSON, which is YAML too and read much faster.
type documents struct {
	stream    []byte
	resources []policy.Resource
	first     []int // number in the stream of the first document of each file, from 1
	files     []string
}

// where tells for a document's number in the stream which file it came from, and its number there.
func (d *documents) where(document int) (file string, number int) {
	for i, f := range d.files {
		if d.first[i] <= document {
			file, number = f, document-d.first[i]+1
		}
	}
	return called(file), number
}

// read joins the files, the .yaml, .yml and .json files of directories, and standard input ("-").
func (d *fileFlags) read(stdin io.Reader) (*documents, error) {
	files, err := d.expand()
	if err != nil {
		return nil, err
	}
	out := &documents{files: files}
	var stream bytes.Buffer
	var faulty []error
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
			// Every fault of every file, with its name, before anything is sent.
			faulty = append(faulty, inFile(f, faults))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		for _, d := range docs {
			text, err := policy.EncodeJSON(d.Resource)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f, err)
			}
			stream.Write(text)
			stream.WriteByte('\n')
			out.resources = append(out.resources, d.Resource)
		}
	}
	if faulty != nil {
		return nil, errors.Join(faulty...)
	}
	if len(out.resources) == 0 {
		names := make([]string, len(files))
		for i, f := range files {
			names[i] = event.Escape(called(f))
		}
		return nil, fmt.Errorf("there is no document in %s", strings.Join(names, ", "))
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

// called is how messages call a file.
func called(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func inFile(file string, faults policy.Faults) error {
	var b strings.Builder
	b.WriteString(event.Escape(called(file)) + " has " + count(len(faults), "fault") + ", nothing was written")
	for _, f := range faults {
		b.WriteString("\n  " + event.Escape(f.String()))
	}
	return errors.New(b.String())
}

// atFile adds the file to faults that the server found.
func atFile(err error, where func(int) (string, int)) error {
	var p *client.Problem
	if !errors.As(err, &p) || len(p.Errors) == 0 {
		return err
	}
	for i := range p.Errors {
		if p.Errors[i].Parameter != "" {
			continue // of the request, not of a document
		}
		file, number := where(max(p.Errors[i].Document, 1))
		p.Errors[i].Detail += " (" + file + ")"
		p.Errors[i].Document = number
		p.Errors[i].Line = 0 // of the joined stream, which nobody has seen
	}
	return err
}
