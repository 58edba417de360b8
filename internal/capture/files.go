package capture

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/internal/capture/pcapng"
)

// Files keeps packets in pcapng files, which only their owner may read: NAME_00001_20060102150405.pcapng, numbered from the first on, as
// dumpcap calls them. There are never more than Keep of a name, also over restarts: the oldest one goes before another one is begun.
// Nothing is held back in this process, so that what a crash leaves can be read up to there.
type Files struct {
	dir, name string
	rotate    int64
	keepFiles int

	file   *os.File
	called string // the file
	size   int64
	empty  bool
	counts []pcapng.Statistics // of the interfaces that the file was told of
	start  time.Time
	buf    []byte

	err      error     // why nothing is written
	again    time.Time // when to try again
	failures uint64
}

// NewFiles keeps packets in files of a directory, which is made if need be. rotate is the most that one has, in bytes, and keep how many
// there are at most, at least 1.
func NewFiles(dir, name string, rotate int64, keep int) *Files {
	return &Files{dir: dir, name: name, rotate: rotate, keepFiles: keep}
}

const suffix = ".pcapng"

// fileName matches names of files: what they are known by, number, time of the beginning.
var fileName = regexp.MustCompile(`^(.+)_(\d{5,9})_(\d{14})\.pcapng$`)

// begun is how names say when a file was begun, in UTC.
const begun = "20060102150405"

// retryAfter is how long writing is not tried after it failed.
const retryAfter = time.Second

func (f *Files) keep(b *batch) (lost int) {
	if f.err != nil && time.Now().Before(f.again) {
		return b.packets
	}
	left, packets := b.blocks, b.packets
	for len(left) > 0 {
		if f.file == nil {
			if err := f.open(b.encoder, true); err != nil {
				return f.fail(err, packets)
			}
		}
		n := f.fitting(b, left)
		if n == 0 {
			if err := f.close(); err != nil {
				return f.fail(err, packets)
			}
			continue
		}
		if err := f.write(b, left[:n]); err != nil {
			return f.fail(err, packets)
		}
		if packets == b.packets {
			f.counts[pcapng.InterfaceOf(left)].Dropped += b.drops
		}
		packets -= f.count(left[:n])
		left = left[n:]
	}
	f.err = nil
	return 0
}

// fitting returns how much of what is left there is still room for, in whole packets. One at least fits into an empty file.
func (f *Files) fitting(b *batch, left []byte) (n int) {
	room := f.rotate - f.size - int64(len(b.interfaces))*pcapng.MaxStatistics
	if len(f.counts) < len(b.interfaces) {
		room -= int64(len(b.appendInterfaces(f.buf[:0], len(f.counts))))
	}
	if int64(len(left)) <= room {
		return len(left)
	}
	for {
		_, block, _, ok := pcapng.Cut(left[n:])
		if !ok || int64(n+len(block)) > room && (n > 0 || !f.empty) {
			return n
		}
		n += len(block)
	}
}

// count notes what was written, and returns how many packets that was.
func (f *Files) count(blocks []byte) (packets int) {
	f.empty = false
	for {
		_, block, rest, ok := pcapng.Cut(blocks)
		if !ok {
			return packets
		}
		f.counts[pcapng.InterfaceOf(block)].Received++
		packets++
		blocks = rest
	}
}

// write writes packets, behind the interfaces that the file has not been told of. Of what could not be written in whole nothing stays.
func (f *Files) write(b *batch, blocks []byte) error {
	out := blocks
	if len(f.counts) < len(b.interfaces) {
		f.buf = append(b.appendInterfaces(f.buf[:0], len(f.counts)), blocks...)
		out = f.buf
	}
	n, err := f.file.Write(out)
	if err != nil {
		if n > 0 {
			if e := errors.Join(f.file.Truncate(f.size), seek(f.file, f.size)); e != nil {
				err = errors.Join(err, e, f.abandon())
			}
		}
		return err
	}
	f.size += int64(n)
	f.counts = append(f.counts, make([]pcapng.Statistics, len(b.interfaces)-len(f.counts))...)
	return nil
}

func seek(file *os.File, at int64) error {
	_, err := file.Seek(at, 0)
	return err
}

// fail notes why packets are lost.
func (f *Files) fail(err error, lost int) int {
	f.err, f.again = err, time.Now().Add(retryAfter)
	f.failures++
	return lost
}

// open begins the next file, unless an old one has to go for that and may not.
func (f *Files) open(e *encoder, evict bool) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	files, last, err := list(root, f.name)
	if err != nil {
		return err
	}
	if len(files) >= f.keepFiles && !evict {
		return nil
	}
	for len(files) >= f.keepFiles {
		if err := root.Remove(files[0].Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		files = files[1:]
	}
	now := time.Now()
	name := fmt.Sprintf("%s_%05d_%s%s", f.name, last+1, now.UTC().Format(begun), suffix)
	file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	head := e.appendSection(nil)
	if _, err := file.Write(head); err != nil {
		return errors.Join(err, file.Close(), root.Remove(name))
	}
	f.file, f.called, f.size, f.empty = file, name, int64(len(head)), true
	f.counts, f.start = make([]pcapng.Statistics, len(e.interfaces)), now
	return nil
}

// close ends the file with what was counted; one without a packet goes.
func (f *Files) close() error {
	if f.file == nil {
		return nil
	}
	file, name := f.file, f.called
	f.file, f.called = nil, ""
	if f.empty {
		err := file.Close()
		if root, e := os.OpenRoot(f.dir); e == nil {
			err = errors.Join(err, root.Remove(name), root.Close())
		}
		return err
	}
	var end []byte
	for i, s := range f.counts {
		s.Start, s.End = f.start, time.Now()
		end = pcapng.AppendStatistics(end, uint32(i), s)
	}
	if _, err := file.Write(end); err != nil { // no packet is lost, and the file is good up to here
		return errors.Join(file.Truncate(f.size), file.Close())
	}
	return file.Close()
}

// abandon closes the file as it is.
func (f *Files) abandon() error {
	err := f.file.Close()
	f.file, f.called = nil, ""
	return err
}

// tick makes the first file, so that it shows at once when there cannot be one, and another one when somebody removed it. Where an old one
// has to go for that, the first packet is waited for: who starts often keeps what there is.
func (f *Files) tick(e *encoder) {
	if f.file != nil {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.file.Fd()), &st); err == nil && st.Nlink > 0 {
			return
		}
		_ = f.abandon()
	}
	if f.err != nil && time.Now().Before(f.again) {
		return
	}
	if err := f.open(e, false); err != nil {
		f.fail(err, 0)
		return
	}
	f.err = nil
}

func (f *Files) end(*encoder) {
	if err := f.close(); err != nil {
		f.fail(err, 0)
	}
}

func (f *Files) report(s *Stats) {
	s.File, s.Failures = f.called, f.failures
	if f.err != nil {
		s.Failing = f.err.Error()
	}
}

// File is one that was written.
type File struct {
	Name     string
	Size     int64
	Begun    time.Time // to the second; zero = its name does not tell
	Modified time.Time
	number   int
}

// list returns the files that are known by a name, the oldest first, and the highest number that any of them ever had.
func list(root *os.Root, name string) (files []File, last int, err error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, 0, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		m := fileName.FindStringSubmatch(e.Name())
		if m == nil || m[1] != name {
			continue
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			continue
		}
		last = max(last, n)
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			at, _ := time.Parse(begun, m[3]) // somebody may have called a file of his so
			files = append(files, File{Name: e.Name(), Size: info.Size(), Begun: at, Modified: info.ModTime(), number: n})
		}
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.number, b.number) })
	return files, last, nil
}

// List returns the files of a directory that are known by a name, the oldest first; none if there is no such directory.
func List(dir, name string) ([]File, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files, _, err := list(root, name)
	return files, err
}

// Open opens a file that is known by a name to be read. fs.ErrNotExist: there is none of them called so; a link is not followed.
func Open(dir, name, file string) (*os.File, error) {
	if m := fileName.FindStringSubmatch(file); m == nil || m[1] != name || strings.ContainsAny(file, "/\x00") {
		return nil, &fs.PathError{Op: "open", Path: file, Err: fs.ErrNotExist}
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	fd, err := unix.Openat(int(d.Fd()), file, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		if err == unix.ELOOP {
			err = unix.ENOENT
		}
		return nil, &fs.PathError{Op: "open", Path: file, Err: err}
	}
	out := os.NewFile(uintptr(fd), file)
	if info, err := out.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = out.Close()
		return nil, &fs.PathError{Op: "open", Path: file, Err: fs.ErrNotExist}
	}
	return out, nil
}
