package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Bounds of a YAML text, for which the parser needs up to a hundred times the memory of the text. JSON has no such bounds.
const (
	maxYAML       = 4 << 20 // bytes
	maxIndicators = 600_000 // characters that may be tokens; 20,000 rules have about that many
)

// parseYAML reads a stream of YAML documents into trees; empty documents are left out. A document that cannot be read does not hide the
// others: the stream is cut into documents beforehand.
func parseYAML(text []byte) (docs []parsed, faults Faults) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return nil, Faults{{Detail: textFormat, Code: CodeSyntax}}
	}
	if len(text) > maxYAML || indicators(text) > maxIndicators {
		return nil, Faults{{Detail: fmt.Sprintf("too much YAML in one text (more than %d MiB or %d items): divide it, or write JSON",
			maxYAML>>20, maxIndicators/10), Code: CodeTooLarge}}
	}
	c := yamlConverter{}
	for n := 0; len(text) > 0; {
		var chunk []byte
		chunk, text = cutDocument(text)
		if chunk[0] == '%' {
			return nil, Faults{{Detail: "YAML directives are not supported", Line: c.line + 1, Code: CodeSyntax}}
		}
		v, err := c.document(chunk)
		c.line += bytes.Count(chunk, []byte("\n"))
		if err == nil && v == nil {
			continue
		}
		if n++; n > maxDocs {
			err = tooLarge("more than %d documents", maxDocs)
		}
		var f Fault
		if !errors.As(err, &f) {
			docs = append(docs, parsed{index: n, tree: v})
			continue
		}
		f.Document = n
		if faults = append(faults, f); len(faults) >= maxFaults || f.Code == CodeTooLarge {
			return docs, faults
		}
	}
	return docs, faults
}

// indicators counts the characters that may become a token of their own.
func indicators(text []byte) int {
	n := 0
	for i, c := range text {
		switch c {
		case '[', ']', '{', '}', ',', '&', '*', '!':
			n++
		case '-', ':', '?':
			if i+1 == len(text) || text[i+1] <= ' ' {
				n++
			}
		}
	}
	return n
}

// cutDocument returns the text up to the next marker of a document, which ends one whatever it is in the middle of (YAML 1.2 §9.1.2).
func cutDocument(text []byte) (document, rest []byte) {
	for at := 0; ; {
		n := bytes.IndexByte(text[at:], '\n') + 1
		if n == 0 {
			return text, nil
		}
		at += n
		l := text[at:]
		if len(l) > 3 && l[3] > ' ' {
			continue
		}
		switch {
		case bytes.HasPrefix(l, []byte("---")):
			return text[:at], l
		case bytes.HasPrefix(l, []byte("...")): // the marker belongs to what it ends
			if n = bytes.IndexByte(l, '\n') + 1; n == 0 {
				n = len(l)
			}
			return text[:at+n], l[n:]
		}
	}
}

// yamlConverter turns nodes into our trees.
type yamlConverter struct {
	line    int // how many are before the document
	anchors map[*yaml.Node]sized
	values  int // of all documents
}

// sized is a value with the number of values in it, aliases counted with what they stand for. Aliases share values, so that a bomb of
// aliases costs nothing here, but whoever walks the tree would pay.
type sized struct {
	value any
	size  int // 0 = it is being read
}

func (c *yamlConverter) document(text []byte) (any, error) {
	d, err := parseNode(text)
	if err != nil {
		return nil, c.syntax(err, text)
	}
	if d == nil {
		return nil, nil
	}
	c.anchors = map[*yaml.Node]sized{}
	return c.convert(d, 0)
}

// parseNode returns the one document of a text, nil if it is empty.
func parseNode(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var d, rest yaml.Node
	if err := dec.Decode(&d); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if err := dec.Decode(&rest); !errors.Is(err, io.EOF) {
		return nil, cmp.Or(err, fmt.Errorf("line %d: did not find expected <document start>", rest.Line-1))
	}
	return d.Content[0], nil
}

var (
	yamlError   = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)`)
	yamlUnknown = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
	// yamlGrammar are the errors of the parser, for which the library names the line before that where the innermost map or list begins
	// or, where that is the first line, the line before the fault. Those of the scanner name the line of the token.
	yamlGrammar = regexp.MustCompile(`^did not find expected (node content|key|[-,'<])`)
	yamlIndent  = regexp.MustCompile(`^\s*`)
	// yamlColon is a text in a map or list in brackets that begins with a colon, as an IPv6 address may.
	yamlColon = regexp.MustCompile(`(?:^|[\[{,]|:\s)\s*(:[^\s,\]}]+)`)
)

// syntax makes a fault of an error of the library.
func (c *yamlConverter) syntax(err error, text []byte) error {
	line, problem := splitError(err)
	f := Fault{Detail: "not YAML: " + problem, Line: c.line + max(line, 1), Code: CodeSyntax}
	unknown := yamlUnknown.FindStringSubmatch(problem)
	switch {
	case strings.HasPrefix(problem, "exceeded max depth"):
		f.Detail, f.Code = fmt.Sprintf("nested deeper than %d", maxDepth), CodeTooLarge
	case unknown != nil:
		f.Detail = fmt.Sprintf("alias *%s stands for nothing", shorten(unknown[1]))
		f.Line = c.line + 1 + bytes.Count(text[:max(bytes.Index(text, []byte("*"+unknown[1])), 0)], []byte("\n"))
	case problem == "found character that cannot start any token":
		lines := bytes.Split(text, []byte("\n"))
		if indent := yamlIndent.Find(lines[min(max(line, 1), len(lines))-1]); bytes.ContainsRune(indent, '\t') {
			f.Detail = "not YAML: a tab does not indent: use spaces"
		}
	case yamlGrammar.MatchString(problem):
		// Without the lines before, the map or list begins in the first line.
		lines := bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
		if _, err := parseNode(bytes.Join(lines[min(line, len(lines)):], nil)); err != nil {
			if further, again := splitError(err); again == problem {
				line += further
			}
		}
		line = min(line, len(lines)-1)
		f.Line = c.line + line + 1
		if colon := yamlColon.FindSubmatch(lines[line]); colon != nil {
			f.Detail = fmt.Sprintf("not YAML: a text that begins with a colon must be in quotes here: %s", quote(string(colon[1])))
		}
	}
	return f
}

func splitError(err error) (line int, problem string) {
	m := yamlError.FindStringSubmatch(err.Error())
	line, _ = strconv.Atoi(m[1]) // none = 0
	return line, m[2]
}

func (c *yamlConverter) faultAt(n *yaml.Node, format string, args ...any) error {
	return Fault{Detail: fmt.Sprintf(format, args...), Line: c.line + n.Line, Code: CodeSyntax}
}

func (c *yamlConverter) convert(n *yaml.Node, depth int) (v any, err error) {
	if depth > maxDepth {
		return nil, tooLarge("nested deeper than %d", maxDepth)
	}
	if c.values++; c.values > maxValues {
		return nil, tooLarge("more than %d values", maxValues)
	}
	if n.Anchor != "" {
		before := c.values - 1
		c.anchors[n] = sized{}
		defer func() { c.anchors[n] = sized{v, c.values - before} }()
	}
	switch n.Kind {
	case yaml.AliasNode:
		a := c.anchors[n.Alias]
		if a.size == 0 {
			return nil, c.faultAt(n, "alias *%s stands for nothing", shorten(n.Value))
		}
		if c.values += a.size; c.values > maxValues {
			return nil, tooLarge("more than %d values", maxValues)
		}
		return a.value, nil
	case yaml.ScalarNode:
		return c.scalar(n)
	}
	if n.Style&yaml.TaggedStyle != 0 {
		return nil, c.faultAt(n, "the YAML tag %s is not supported", shorten(n.Tag))
	}
	if n.Kind == yaml.SequenceNode {
		l := list{items: make([]any, len(n.Content)), lines: make([]int, len(n.Content))}
		for i, item := range n.Content {
			l.lines[i] = c.line + item.Line
			if l.items[i], err = c.convert(item, depth+1); err != nil {
				return nil, err
			}
		}
		return l, nil
	}
	if len(n.Content)/2 > maxKeys {
		return nil, tooLarge("more than %d keys in one map", maxKeys)
	}
	o := object{members: make([]member, 0, len(n.Content)/2), line: c.line + n.Line}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.ShortTag() == "!!merge":
			return nil, c.faultAt(key, "merge keys (<<) are not supported: write the fields out")
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" && key.ShortTag() != "!!timestamp":
			return nil, c.faultAt(key, "a key must be a text: put it in quotes")
		}
		v, err := c.convert(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		o.members = append(o.members, member{key: key.Value, value: v, line: c.line + key.Line})
	}
	return o, nil
}

// scalar knows !!str, which is how an unquoted number or truth value can be a text; other tags would be ignored, so they are refused.
func (c *yamlConverter) scalar(n *yaml.Node) (any, error) {
	plain := *n
	if n.Style&yaml.TaggedStyle != 0 {
		if n.Tag != "!!str" {
			return nil, c.faultAt(n, "the YAML tag %s is not supported", shorten(n.Tag))
		}
		plain.Tag = ""
		if plain.ShortTag() == "!!null" {
			return nil, c.faultAt(n, "the YAML tag !!str goes with a text, not with null")
		}
		return n.Value, nil
	}
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case "!!int", "!!float":
		if len(n.Value) > 18 && strings.Trim(n.Value, "0123456789") == "" {
			return n.Value, nil // an identifier: no number of ours is that long
		}
		return number(n.Value), nil
	}
	return n.Value, nil
}
