package ofctrl

import (
	"context"
	"fmt"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// Role asks the switch for the role of the connection (OpenFlow 1.3 §6.3.6): equal, unless it was claimed. In the secondary one
// the switch refuses every change with [ofp.IsSecondary]. Errors are those of EachFlow.
func (s *Switch) Role(ctx context.Context) (ofp.Role, error) {
	reply, err := s.role(ctx, ofp.RoleNoChange, 0)
	if err != nil {
		return 0, err
	}
	return reply.Role, nil
}

// Claim makes the connection the primary one of the switch, under a higher generation than the highest that it knows. Who was primary is
// secondary from then on, and told so by every refusal; who is equal stays that. Errors are those of EachFlow.
func (s *Switch) Claim(ctx context.Context) error {
	known, err := s.role(ctx, ofp.RoleNoChange, 0)
	if err == nil {
		// A switch that has seen none answers with all bits set, which makes it 0.
		_, err = s.role(ctx, ofp.RolePrimary, known.GenerationID+1)
	}
	return err
}

func (s *Switch) role(ctx context.Context, want ofp.Role, generation uint64) (*ofp.RoleReply, error) {
	conn, err := s.connection()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	m, err := conn.request(ctx, "role "+want.String(), func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendRoleRequest(dst, xid, want, generation), nil
	})
	if err != nil {
		return nil, gone(err)
	}
	reply, ok := m.(*ofp.RoleReply)
	if !ok {
		return nil, fmt.Errorf("role request answered by %T: %w", m, ErrProtocol)
	}
	return reply, nil
}
