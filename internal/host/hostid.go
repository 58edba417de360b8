package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tapwall/tapwall/internal/wholefile"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// What a host must find again, the numbers that its connections carry above all, is kept in the store under the host's id. That id may
// change, while tapwall runs or between two runs: somebody sets the system-id that was missing, or another one. What is kept then moves
// to the new id. A file tells the next process, whose store may be shared by many hosts, under which id this one's was kept.

// settleHost makes host the id of the host as the topology has it. Where that fails the old one is used until it succeeds: the numbers of
// two ids must not mix.
func (e *Engine) settleHost(ctx context.Context) error {
	if e.idErr != nil {
		return e.idErr
	}
	id := e.topo.Host
	if e.host == "" {
		old, err := e.rememberedHost()
		if err != nil {
			return err
		}
		at := orElse(old, id)
		if err := e.keep(at); err != nil {
			return err
		}
		e.remembered, e.host = old, at
	}
	if e.host != id {
		return e.moveHost(ctx, e.host, id)
	}
	return e.rememberHost(id)
}

// named returns a topology under the id that the host goes by: that of its database, unless another host of this process has it. It then
// keeps the id that it had or, if it never had one, is called as in the configuration, and is not managed: what is told of two hosts
// must not mix.
func (e *Engine) named(topo *vswitch.Topology) *vswitch.Topology {
	if topo == nil {
		return nil
	}
	id := topo.Host
	if e.opt.Claim != nil {
		if e.idErr = e.opt.Claim(id); e.idErr != nil {
			id = orElse(e.id, orElse(e.opt.Name, "localhost"))
		} else {
			e.id = id
		}
	}
	switch {
	case topo == e.seen && id == e.topo.Host:
		return e.topo
	case id != topo.Host:
		e.seen = topo
		renamed := *topo
		renamed.Host = id
		return &renamed
	}
	e.seen = topo
	return topo
}

// keep tells the other hosts under which ids something is kept of this one.
func (e *Engine) keep(ids ...string) error {
	if e.opt.Keep == nil {
		return nil
	}
	return e.opt.Keep(ids...)
}

func (e *Engine) moveHost(ctx context.Context, old, id string) error {
	if err := e.keep(old, id); err != nil {
		return err
	}
	for _, l := range e.ledgers {
		if l.writing {
			return errors.New("ids are being saved under the old one") // the end of that brings us back
		}
	}
	states, err := e.opt.Store.ListStates(ctx, old, "")
	if err != nil {
		return err
	}
	there, err := e.opt.Store.ListStates(ctx, id, "")
	if err != nil {
		return err
	}
	gone := map[string][]byte{}
	for key := range states {
		gone[key] = nil
	}
	for key := range there {
		if _, ok := states[key]; !ok {
			states[key] = nil
		}
	}
	if err := e.opt.Store.PutStates(ctx, id, states); err != nil {
		return err
	}
	// From here on the next process looks under the new id. Before, it finds the old one whole and moves it again.
	if err := e.rememberHost(id); err != nil {
		return err
	}
	e.host = id
	for _, b := range e.bridges {
		b.host.Store(&id)
	}
	e.log.Info("the host has another id; what is kept of it has moved", "from", old, "to", id)
	if err := e.opt.Store.PutStates(ctx, old, gone); err != nil {
		e.log.Warn("what was kept under the host's old id is still there", "host", old, "err", err) // nobody reads it
	}
	return e.keep(id)
}

// rememberedHost returns the id that rememberHost wrote last; "" = none.
func (e *Engine) rememberedHost() (string, error) {
	if e.opt.HostFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(e.opt.HostFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// rememberHost replaces the file as a whole.
func (e *Engine) rememberHost(id string) error {
	if e.opt.HostFile == "" || e.remembered == id {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(e.opt.HostFile), 0o700); err != nil {
		return err
	}
	if err := wholefile.Write(e.opt.HostFile, []byte(id+"\n"), 0o600); err != nil {
		return err
	}
	e.remembered = id
	return nil
}
