package opensearch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	lettersFile = "dead-letters.ndjson"
	olderFile   = "dead-letters.old.ndjson"
	replayFile  = "dead-letters.replay-"

	maxLetters = 32 << 20
)

// letter is a line of the file: a document that the server will never take as it is, and why.
type letter struct {
	Time     time.Time       `json:"@timestamp"` // of the refusal
	Error    problem         `json:"error"`
	Index    string          `json:"index,omitempty"`
	ID       string          `json:"id,omitempty"`
	Document json.RawMessage `json:"document"`
}

// letters are the dead letters, in two files: once the newer one is full it becomes the older one, and what that held is discarded.
type letters struct {
	dir string
	max int64 // bytes of each of the two files

	mu        sync.Mutex
	f         *os.File
	n, old    int64 // lines of the two files
	size      int64 // of both
	newer     int64 // bytes of the newer
	discarded int64
	replaying bool
}

// openLetters opens or makes the files; replays is how many replays are finished, of which a file may be left.
func openLetters(dir string, replays int64) (*letters, error) {
	if dir == "" {
		return nil, errors.New("no directory for dead letters")
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	l := &letters{dir: dir, max: maxLetters}
	var err error
	if l.old, l.size, err = countLines(l.path(olderFile)); err != nil {
		return nil, err
	}
	if l.n, l.newer, err = countLines(l.path(lettersFile)); err != nil {
		return nil, err
	}
	l.size += l.newer
	left, err := filepath.Glob(l.path(replayFile) + "*")
	if err != nil {
		return nil, err
	}
	for _, path := range left {
		n, err := strconv.ParseInt(strings.TrimPrefix(filepath.Base(path), replayFile), 10, 64)
		if err == nil && n <= replays {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

func (l *letters) path(name string) string { return filepath.Join(l.dir, name) }

func countLines(path string) (lines, size int64, err error) {
	f, err := os.Open(path) //nolint:gosec // below the data directory
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close() //nolint:errcheck // read only
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		lines += int64(bytes.Count(buf[:n], []byte{'\n'}))
		size += int64(n)
		if err == io.EOF {
			return lines, size, nil
		}
		if err != nil {
			return 0, 0, err
		}
	}
}

// add appends a letter and says how many old ones it cost.
func (l *letters) add(d doc, why problem, now time.Time) (discarded int64, err error) {
	b, err := json.Marshal(letter{Time: now.UTC(), Error: why, Index: d.index, ID: d.id, Document: d.json})
	if err != nil { // no JSON: as a text
		text, _ := json.Marshal(string(d.json)) //nolint:errchkjson // a text always can be
		if b, err = json.Marshal(letter{Time: now.UTC(), Error: why, Document: text}); err != nil {
			return 0, err
		}
	}
	b = append(b, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.newer > 0 && l.newer+int64(len(b)) > l.max {
		if err := l.rotate(); err != nil {
			return 0, err
		}
		discarded = l.old
		l.discarded += discarded
		l.old, l.n = l.n, 0
		l.size, l.newer = l.newer, 0
	}
	if l.f == nil {
		if l.f, err = os.OpenFile(l.path(lettersFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640); err != nil {
			return discarded, fmt.Errorf("dead letters: %w", err)
		}
	}
	n, err := l.f.Write(b)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, l.f.Truncate(l.newer))
		}
		return discarded, fmt.Errorf("dead letters: %w", err)
	}
	l.n++
	l.size += int64(n)
	l.newer += int64(n)
	return discarded, nil
}

func (l *letters) rotate() error {
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
	return os.Rename(l.path(lettersFile), l.path(olderFile))
}

func (l *letters) status() (waiting, bytes, discarded int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n + l.old, l.size, l.discarded
}

func (l *letters) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := errors.Join(l.f.Sync(), l.f.Close())
	l.f = nil
	return err
}

// errReplaying says that a replay is under way; match with errors.Is.
var errReplaying = errors.New("dead letters are being sent again already")

// begin takes all letters for a replay of a number: they are in the file whose path is returned, also those that an interrupted replay
// left. "" = there are none. end must follow.
func (l *letters) begin(number int64) (path string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.replaying {
		return "", errReplaying
	}
	path = l.path(replayFile + strconv.FormatInt(number, 10))
	l.replaying = true
	defer func() { l.replaying = err == nil && path != "" }()
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
	for _, name := range []string{olderFile, lettersFile} {
		if err := appendFile(path, l.path(name)); err != nil {
			return "", err
		}
	}
	l.n, l.old, l.size, l.newer = 0, 0, 0, 0
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return path, nil
}

func (l *letters) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replaying = false
}

// appendFile moves what from holds to the end of to.
func appendFile(to, from string) error {
	src, err := os.Open(from) //nolint:gosec // below the data directory
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer src.Close()                                                       //nolint:errcheck // read only
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640) //nolint:gosec // likewise
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err = errors.Join(err, dst.Sync(), dst.Close()); err != nil {
		return err
	}
	return os.Remove(from)
}

// readLetters calls f with the letters of a file, some at a time, each once. What is no letter is skipped.
func readLetters(path string, some int, f func([]letter) error) error {
	file, err := os.Open(path) //nolint:gosec // below the data directory
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // read only
	seen := map[string]bool{}
	var batch []letter
	r := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		var one letter
		if json.Unmarshal(line, &one) == nil && one.ID != "" && !seen[one.ID] {
			seen[one.ID] = true
			batch = append(batch, one)
		}
		if len(batch) == some || err != nil && len(batch) > 0 {
			if err := f(batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
