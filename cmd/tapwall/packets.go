package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/internal/capture/pcapng"
)

// packetOutput is where packets are written: a file of this machine, or standard output where path is "-".
type packetOutput struct {
	path  string
	force bool      // replace a file that is there
	out   io.Writer // standard output
}

// check refuses what would not be wanted, before anybody is asked for packets.
func (p *packetOutput) check() error {
	if p.path == "" {
		return usage("-w needs the name of a file, or - for standard output")
	}
	if p.path == "-" {
		if f, ok := p.out.(*os.File); ok && isTerminal(f) {
			return usage("packets are not written to a terminal: give -w FILE, or pipe them as in | wireshark -k -i -")
		}
		return nil
	}
	if _, err := os.Lstat(p.path); err == nil && !p.force {
		return fmt.Errorf("%s is there already: give another name, or --force to replace it", p.path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// stream opens what packets are written to as they come; only the user may read a file.
func (p *packetOutput) stream() (io.Writer, func() error, error) {
	if p.path == "-" {
		return p.out, func() error { return nil }, nil
	}
	mode := os.O_CREATE | os.O_WRONLY | os.O_EXCL
	if p.force {
		mode = os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	}
	f, err := os.OpenFile(p.path, mode, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

// whole has write make a file that appears when it is complete, and not otherwise; only the user may read it.
func (p *packetOutput) whole(write func(io.Writer) error) (err error) {
	if p.path == "-" {
		return write(p.out)
	}
	f, err := os.CreateTemp(filepath.Dir(p.path), "."+filepath.Base(p.path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), p.path)
}

// where says which file was written.
func (p *packetOutput) where() string {
	if p.path == "-" {
		return ""
	}
	return " in " + p.path
}

// tally is what went through a copy of packets.
type tally struct{ packets, dropped uint64 }

// tell says so; where is which file has them.
func (n tally) tell(w io.Writer, where string) error {
	return printf(w, "%s%s written, %d dropped\n", count(int(n.packets), "packet"), where, n.dropped)
}

// copyPackets writes the blocks of a pcapng stream, and counts its packets, until it ends or ctx does; then what has come is still written,
// if somebody takes it within a second. The error is that of ctx's cause in that case, and io.ErrUnexpectedEOF if the stream broke off.
func copyPackets(ctx context.Context, w io.Writer, from io.Reader) (n tally, err error) {
	type result struct {
		tally
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := copyBlocks(w, from)
		done <- result{n, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		select {
		case r = <-done:
		case <-time.After(time.Second):
		}
		r.err = context.Cause(ctx)
	}
	return r.tally, r.err
}

// copyBlocks writes blocks whole, and at once when no more have come: what was written can be read, whatever ends it.
func copyBlocks(w io.Writer, from io.Reader) (n tally, err error) {
	in, out := pcapng.NewReader(from), bufio.NewWriterSize(w, 1<<18)
	for {
		kind, block, err := in.Next()
		if err != nil {
			if failed := out.Flush(); failed != nil || err == io.EOF {
				return n, failed
			}
			return n, err
		}
		if kind == pcapng.TypePacket {
			n.packets++
			n.dropped += pcapng.DropCountOf(block)
		}
		if _, err := out.Write(block); err != nil {
			return n, err
		}
		if !in.Buffered() {
			if err := out.Flush(); err != nil {
				return n, err
			}
		}
	}
}

// errUnread says that nobody reads what is written any more.
var errUnread = errors.New("nobody reads the packets any more")

// whileRead returns a context that ends with errUnread when packets go to a pipe whose reader has gone: what writes only now and then would
// not notice before there is a packet. Writes to such a pipe fail then, instead of ending the program.
func (p *packetOutput) whileRead(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	f, ok := p.out.(*os.File)
	if !ok || p.path != "-" {
		return ctx, cancel
	}
	signal.Ignore(syscall.SIGPIPE)
	info, err := f.Stat()
	if err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) == 0 {
		return ctx, cancel
	}
	pipe, err := f.SyscallConn()
	if err != nil {
		return ctx, cancel
	}
	go func() {
		for ctx.Err() == nil {
			events := []unix.PollFd{{}} // none is asked for: errors are told of all the same
			err := pipe.Control(func(fd uintptr) {
				events[0].Fd = int32(fd)
				_, _ = unix.Poll(events, 200)
			})
			if err != nil || events[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
				cancel(errUnread)
			}
		}
	}()
	return ctx, cancel
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
