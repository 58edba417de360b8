package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// errDemoted: this tapwall was told to take over, and somebody else has done the same later.
var errDemoted = errors.New("another controller has taken the primary role of the bridge, so this tapwall changes nothing there; " +
	"start it again with --take-over to take it back")

// takeRole makes this tapwall the primary controller of an owned bridge if it was told to take over, once for each connection and each time
// that it gets the lock of the host. Its error says that it is not, or no longer: then nothing may be changed there.
func (e *Engine) takeRole(ctx context.Context, b *bridge, st ofctrl.State) error {
	if !e.opt.TakeOver || b.cfg.Mode != Owned {
		return nil
	}
	if b.roleEpoch != st.Epoch {
		if err := b.sw.Claim(ctx); err != nil {
			return fmt.Errorf("take the primary role: %w", err)
		}
		b.roleEpoch = st.Epoch
		b.demoted.Store(0)
		e.log.Info("took the primary role", "bridge", b.cfg.Name)
	}
	if b.demoted.Load() == st.Epoch {
		return errDemoted
	}
	return nil
}

// roleInterval is how often a primary controller asks whether it still is one; a change that it wants to make tells it, too.
const roleInterval = time.Second

// watchRole notices that another controller has taken the role, which Open vSwitch tells nobody who does not ask.
func (e *Engine) watchRole(ctx context.Context, l *link) {
	for e.opt.TakeOver && pause(ctx, roleInterval) {
		st := l.sw.State()
		if role, err := l.sw.Role(ctx); err == nil && role == ofp.RoleSecondary && l.sw.State().Epoch == st.Epoch &&
			l.demoted.Swap(st.Epoch) != st.Epoch {
			e.log.Warn("another controller has taken the primary role", "bridge", l.cfg.Name)
			e.poke()
		}
	}
}
