// Package wholefile writes small files that are read back after a crash.
package wholefile

import (
	"errors"
	"io/fs"
	"os"
)

// Write puts text in the place of the file, so that after any crash it has its old content or the new, whole. It is for one writer of a
// path at a time. A power failure may bring the old content back until the directory is synchronised, which is the caller's to do.
func Write(path string, text []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode) //nolint:gosec // path is the caller's
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
