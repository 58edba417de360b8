package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/tapwall/tapwall/event"
)

// observeFormats are what -o of observe takes.
var observeFormats = []string{"compact", "table", "dict", "json", "csv", "ek"}

// csvColumns are those without --field-mask.
var csvColumns = []string{"@timestamp", "event.id", "event.action", "tapwall.verdict", "source.ip", "source.port", "tapwall.source.name",
	"destination.ip", "destination.port", "tapwall.destination.name", "network.transport", "network.bytes", "tapwall.direction", "rule.id",
	"event.reason", "tapwall.bridge", "observer.name", "tapwall.notice.message", "tapwall.loss.stage", "tapwall.loss.count",
	"tapwall.ended.how", "event.duration", "user.name"}

// eventPrinter prints events in one format. raw is the JSON of the event.
type eventPrinter struct {
	w      io.Writer
	format string
	mask   []string // places of fields, expanded
	po     event.PrintOptions
	began  bool
	rows   [][]string // of a table, not printed yet
	widths []int
	noEK   int // events that -o ek has no line for
}

// print takes a line; flush puts out what still waits.
func (p *eventPrinter) print(l line) error {
	e, raw := l.e, l.raw
	switch p.format {
	case "table":
		p.rows = append(p.rows, event.Row(e, p.po))
		return nil
	case "ek":
		lines, ok := event.AppendEK(nil, e)
		if !ok {
			p.noEK++
			return nil
		}
		return p.write(string(safeJSON(lines)))
	case "compact":
		text := event.Compact(e, p.po)
		if l.n > 1 {
			text += fmt.Sprintf(", %d times until %s", l.n, p.po.TimeText(l.last))
		}
		return p.write(text + "\n")
	case "json":
		if p.mask == nil {
			var line bytes.Buffer // one event is one line, whatever a proxy has made of it
			if err := json.Compact(&line, raw); err != nil {
				return err
			}
			return p.write(string(safeJSON(line.Bytes())) + "\n")
		}
	}
	d, err := event.ParseDocument(raw)
	if err != nil {
		return err
	}
	switch p.format {
	case "csv":
		return p.csv(d)
	case "dict":
		return p.dict(d)
	}
	line, err := json.Marshal(d.Pick(p.mask))
	if err != nil {
		return err
	}
	return p.write(string(safeJSON(line)) + "\n")
}

// write puts out what is safe for a terminal, and may have colours.
func (p *eventPrinter) write(text string) error {
	_, err := io.WriteString(unscreened(p.w), text)
	return err
}

func (p *eventPrinter) dict(d event.Document) error {
	if p.mask != nil {
		d = d.Pick(p.mask)
	}
	var b strings.Builder
	if p.began {
		b.WriteString("\n")
	}
	p.began = true
	for _, f := range d.Flat() {
		b.WriteString(event.Escape(f.Place) + ": " + event.Escape(f.Text) + "\n")
	}
	return p.write(b.String())
}

// csv writes a row, under a header before the first. Spreadsheets take what begins with one of =+-@ for a formula: it gets a '.
func (p *eventPrinter) csv(d event.Document) error {
	columns := p.mask
	if columns == nil {
		columns = csvColumns
	}
	var rows [][]string
	if !p.began {
		rows = append(rows, columns)
	}
	p.began = true
	row := make([]string, len(columns))
	for i, c := range columns {
		if row[i] = event.Escape(d.Text(c)); row[i] != "" && strings.ContainsRune("=+-@", rune(row[i][0])) {
			row[i] = "'" + row[i]
		}
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	if err := w.WriteAll(append(rows, row)); err != nil {
		return err
	}
	return p.write(b.String())
}

// flush prints the rows of a table as wide as what came so far.
func (p *eventPrinter) flush() error {
	if len(p.rows) == 0 {
		return nil
	}
	rows := p.rows
	if !p.began {
		rows = append([][]string{event.RowHeader(p.po)}, rows...)
		p.widths = make([]int, len(rows[0]))
	}
	p.began, p.rows = true, nil
	for _, r := range rows {
		for i, cell := range r {
			p.widths[i] = max(p.widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		line := ""
		for i, cell := range r {
			line += cell + strings.Repeat(" ", p.widths[i]-utf8.RuneCountInString(cell)+3)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return p.write(b.String())
}
