package wholefile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tapwall/tapwall/internal/wholefile"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for _, text := range []string{"first and longer", "second", ""} {
		if err := wholefile.Write(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// What cannot take the place of a directory leaves nothing behind.
	if err := os.MkdirAll(filepath.Join(dir, "b", "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := wholefile.Write(filepath.Join(dir, "b"), []byte("x"), 0o640); err == nil {
		t.Error("a file was put in the place of a directory")
	}
	if err := wholefile.Write(filepath.Join(dir, "none", "x"), nil, 0o640); err == nil {
		t.Error("a file was written where there is no directory")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.new")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
