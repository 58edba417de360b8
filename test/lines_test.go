package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxColumns is the length of a line of Go, a tab counted as one.
const maxColumns = 140

// structTag is a field with a tag, which no line break may be in.
var structTag = regexp.MustCompile("`[a-z]+:\".*\"`$")

func TestLines(t *testing.T) {
	for _, path := range sources(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(text), "// Code generated") {
			continue
		}
		for i, line := range strings.Split(string(text), "\n") {
			if n := utf8.RuneCountInString(line); n > maxColumns && !structTag.MatchString(line) {
				t.Errorf("%s:%d has %d columns, more than %d", path, i+1, n, maxColumns)
			}
		}
	}
}

// What a merge leaves where it did not know better belongs nowhere.
func TestNoConflictMarkers(t *testing.T) {
	marker := regexp.MustCompile(`(?m)^(<{7}|>{7}) `)
	for _, pattern := range []string{
		"../*.md", "../docs/*.md", "../docs/design/*.md", "../docs/*.yaml", "../examples/*.yaml", "../examples/*/*.yaml",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v, %v", pattern, paths, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if at := marker.FindIndex(text); at != nil {
				t.Errorf("%s:%d is a conflict", path, 1+strings.Count(string(text[:at[0]]), "\n"))
			}
		}
	}
}
