package policy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of a YAML text, for which the parser needs up to a hundred times the memory of the text. JSON has no such bounds.
const (
	maxYAML       = 4 << 20 // bytes
	maxIndicators = 600_000 // characters that may be tokens; 20,000 rules have about that many
)

// maxProperties bounds tags and anchors in a row, which the parser nests.
const maxProperties = 4

// parseYAML reads a stream of YAML documents into trees; empty documents are left out. The parser is recursive and, in the number of
// documents and of keys of a map, quadratic: so the stream is cut into documents, and their depth and keys are bounded, while it is
// still a list of tokens.
func parseYAML(text []byte) (docs []parsed, faults Faults) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return nil, Faults{{Detail: textFormat, Code: CodeSyntax}}
	}
	if len(text) > maxYAML || indicators(text) > maxIndicators {
		return nil, Faults{{Detail: fmt.Sprintf("too much YAML in one text (more than %d MiB or %d items): divide it, or write JSON", maxYAML>>20, maxIndicators/10), Code: CodeTooLarge}}
	}
	chunks, err := splitYAML(text)
	if err != nil {
		return nil, Faults{asFault(err)}
	}
	conv := &yamlConverter{}
	n := 0
	for _, chunk := range chunks {
		v, err := conv.document(chunk)
		if err == nil && v == nil {
			continue
		}
		n++
		if err != nil {
			f := asFault(err)
			f.Document = n
			if faults = append(faults, f); len(faults) >= maxFaults || f.Code == CodeTooLarge {
				return docs, faults
			}
			continue
		}
		docs = append(docs, parsed{index: n, tree: v})
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

func asFault(err error) Fault {
	var f Fault
	if errors.As(err, &f) {
		return f
	}
	return syntaxFault(err)
}

func syntaxFault(err error) Fault {
	f := Fault{Detail: "not YAML: " + err.Error(), Code: CodeSyntax}
	var yerr yaml.Error
	if errors.As(err, &yerr) {
		f.Detail = "not YAML: " + yerr.GetMessage()
		if tk := yerr.GetToken(); tk != nil && tk.Position != nil {
			f.Line = tk.Position.Line
		}
	}
	return f
}

// splitYAML cuts the tokens at document markers.
func splitYAML(text []byte) (chunks []token.Tokens, err error) {
	defer recoverAsFault(&err)
	var cur token.Tokens
	flush := func() {
		if len(cur) > 0 {
			chunks, cur = append(chunks, cur), nil
		}
	}
	for _, tk := range lexer.Tokenize(string(text)) {
		switch tk.Type {
		case token.CommentType:
			continue
		case token.DocumentHeaderType:
			flush()
			continue
		case token.DocumentEndType:
			flush()
			continue
		case token.DirectiveType:
			return nil, Fault{Detail: "YAML directives are not supported", Line: tk.Position.Line, Code: CodeSyntax}
		}
		cur = append(cur, tk)
	}
	flush()
	if len(chunks) > maxDocs {
		return nil, tooLarge("more than %d documents", maxDocs)
	}
	for _, chunk := range chunks {
		if err := checkShape(chunk); err != nil {
			return nil, err
		}
	}
	return chunks, nil
}

// recoverAsFault turns a panic of the YAML library on hostile text into a fault: a text may be refused, but must not end the process.
func recoverAsFault(err *error) {
	if r := recover(); r != nil {
		*err = Fault{Detail: fmt.Sprintf("not YAML that this version can read (%v)", r), Code: CodeSyntax}
	}
}

// shapeLevel is a map or list that is open while tokens are counted.
type shapeLevel struct {
	column int // of a block level; 0 = flow style, closed by its bracket
	keys   int
}

// checkShape bounds depth and keys of a document by its tokens alone. Indentation counts as depth, so it may refuse only what is
// unreasonable anyway.
func checkShape(tokens token.Tokens) error {
	levels := make([]shapeLevel, 0, maxDepth)
	properties := 0
	// block enters the level of a block token at a column, leaving those further right.
	block := func(column int) *shapeLevel {
		for n := len(levels); n > 0 && levels[n-1].column > column; n = len(levels) {
			levels = levels[:n-1]
		}
		if n := len(levels); n == 0 || levels[n-1].column != column {
			levels = append(levels, shapeLevel{column: column})
		}
		return &levels[len(levels)-1]
	}
	for i, tk := range tokens {
		inFlow := len(levels) > 0 && levels[len(levels)-1].column == 0
		if tk.Type == token.TagType || tk.Type == token.AnchorType {
			properties++
		} else if tk.PreviousType() != token.AnchorType { // the name of an anchor is a token of its own
			properties = 0
		}
		var level *shapeLevel
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			levels = append(levels, shapeLevel{})
		case token.SequenceEndType, token.MappingEndType:
			if inFlow {
				levels = levels[:len(levels)-1]
			}
		case token.SequenceEntryType, token.MappingKeyType:
			if !inFlow {
				block(tk.Position.Column)
			}
		case token.MappingValueType:
			switch {
			case inFlow:
				level = &levels[len(levels)-1]
			case i > 0 && tokens[i-1].Position.Line == tk.Position.Line:
				level = block(tokens[i-1].Position.Column)
			default:
				level = block(tk.Position.Column)
			}
		}
		if level != nil {
			level.keys++
		}
		switch {
		case len(levels) > maxDepth:
			return Fault{Detail: fmt.Sprintf("nested deeper than %d", maxDepth), Line: tk.Position.Line, Code: CodeTooLarge}
		case level != nil && level.keys > maxKeys:
			return Fault{Detail: fmt.Sprintf("more than %d keys in one map", maxKeys), Line: tk.Position.Line, Code: CodeTooLarge}
		case properties > maxProperties:
			return Fault{Detail: "too many tags or anchors in a row", Line: tk.Position.Line, Code: CodeTooLarge}
		}
	}
	return nil
}

// yamlConverter turns syntax trees into ours.
type yamlConverter struct {
	anchors map[string]sized // of the current document
	values  int              // of all documents
}

// sized is a value with the number of values in it, aliases counted with what they stand for. Aliases share values, so that a bomb of
// aliases costs nothing here, but whoever walks the tree would pay.
type sized struct {
	value any
	size  int
}

func (c *yamlConverter) document(tokens token.Tokens) (v any, err error) {
	defer recoverAsFault(&err)
	// Repeated keys are let through here and reported with all other faults.
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, err
	}
	c.anchors = make(map[string]sized)
	for _, d := range f.Docs {
		if d.Body == nil {
			continue
		}
		if v != nil {
			return nil, faultAt(d.Body, "a second document without --- before it")
		}
		s, err := c.convert(d.Body, 0)
		if err != nil {
			return nil, err
		}
		v = s.value
	}
	return v, nil
}

func faultAt(n ast.Node, format string, args ...any) error {
	f := Fault{Detail: fmt.Sprintf(format, args...), Code: CodeSyntax}
	f.Line = nodeLine(n)
	return f
}

func nodeLine(n ast.Node) int {
	if n == nil {
		return 0
	}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line
	}
	return 0
}

func (c *yamlConverter) convert(n ast.Node, depth int) (sized, error) {
	if depth > 4*maxDepth { // tags and anchors are levels here
		return sized{}, tooLarge("nested deeper than %d", maxDepth)
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return c.leaf(nil)
	case *ast.StringNode:
		return c.leaf(n.Value)
	case *ast.LiteralNode:
		return c.leaf(n.Value.Value)
	case *ast.BoolNode:
		return c.leaf(n.Value)
	case *ast.IntegerNode:
		return c.leaf(number(n.Token.Value))
	case *ast.FloatNode:
		return c.leaf(number(n.Token.Value))
	case *ast.InfinityNode:
		return c.leaf(number(n.Token.Value))
	case *ast.NanNode:
		return c.leaf(number(n.Token.Value))
	case *ast.TagNode:
		return c.tag(n, depth)
	case *ast.AnchorNode:
		s, err := c.convert(n.Value, depth+1)
		if err == nil {
			c.anchors[n.Name.GetToken().Value] = s
		}
		return s, err
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		s, ok := c.anchors[name]
		if !ok {
			return sized{}, faultAt(n, "alias *%s stands for nothing", shorten(name))
		}
		return s, c.count(s.size)
	case *ast.MappingNode:
		return c.mapping(n.Values, nodeLine(n), depth)
	case *ast.MappingValueNode:
		return c.mapping([]*ast.MappingValueNode{n}, nodeLine(n), depth)
	case *ast.SequenceNode:
		return c.sequence(n, depth)
	}
	return sized{}, faultAt(n, "YAML %s is not supported", strings.ToLower(n.Type().String()))
}

func (c *yamlConverter) count(n int) error {
	if c.values += n; c.values > maxValues {
		return tooLarge("more than %d values", maxValues)
	}
	return nil
}

func (c *yamlConverter) leaf(v any) (sized, error) { return sized{v, 1}, c.count(1) }

// tag knows !!str, which is how an unquoted number or truth value can be a text; other tags would be ignored, so they are refused.
func (c *yamlConverter) tag(n *ast.TagNode, depth int) (sized, error) {
	if n.Start.Value != "!!str" || n.Value == nil {
		return sized{}, faultAt(n, "the YAML tag %s is not supported", shorten(n.Start.Value))
	}
	s, err := c.convert(n.Value, depth+1)
	switch v := s.value.(type) {
	case string:
	case number:
		s.value = string(v)
	case bool:
		s.value = n.Value.GetToken().Value
	default:
		if err == nil {
			err = faultAt(n, "the YAML tag !!str goes with a text, not with %s", describe(v))
		}
	}
	return s, err
}

func (c *yamlConverter) mapping(values []*ast.MappingValueNode, line, depth int) (sized, error) {
	o := sized{size: 1}
	if err := c.count(1); err != nil {
		return o, err
	}
	members := make([]member, 0, len(values))
	for _, v := range values {
		key, err := mapKey(v.Key)
		if err != nil {
			return o, err
		}
		s, err := c.convert(v.Value, depth+1)
		if err != nil {
			return o, err
		}
		o.size += s.size
		members = append(members, member{key: key, value: s.value, line: nodeLine(v.Key)})
	}
	if len(members) > maxKeys {
		return o, tooLarge("more than %d keys in one map", maxKeys)
	}
	o.value = object{members: members, line: line}
	return o, nil
}

// mapKey accepts text only: a number or a truth value as a key would change its spelling.
func mapKey(n ast.MapKeyNode) (string, error) {
	if n.IsMergeKey() {
		return "", faultAt(n, "merge keys (<<) are not supported: write the fields out")
	}
	var node ast.Node = n
	if k, ok := n.(*ast.MappingKeyNode); ok {
		node = k.Value
	}
	if s, ok := node.(*ast.StringNode); ok {
		return s.Value, nil
	}
	return "", faultAt(n, "a key must be a text: put it in quotes")
}

func (c *yamlConverter) sequence(n *ast.SequenceNode, depth int) (sized, error) {
	out := sized{size: 1}
	if err := c.count(1); err != nil {
		return out, err
	}
	l := list{items: make([]any, 0, len(n.Values)), lines: make([]int, 0, len(n.Values))}
	for _, v := range n.Values {
		s, err := c.convert(v, depth+1)
		if err != nil {
			return out, err
		}
		out.size += s.size
		l.items, l.lines = append(l.items, s.value), append(l.lines, nodeLine(v))
	}
	out.value = l
	return out, nil
}
