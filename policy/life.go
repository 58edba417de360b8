package policy

import (
	"time"

	"github.com/tapwall/tapwall/duration"
)

// The life of a mirror is when it begins and ends by itself: by StartAt, StopAfter and TTL. What comes of it is nowhere in its
// specification; see docs/design/0015-mirror-life.md.

// Idle says why a mirror does not copy although it is enabled.
type Idle struct {
	Phase   Phase // Pending or Stopped
	Reason  Reason
	Message string
}

// IsEnabled reports whether the mirror is to copy, when its time has come.
func (m *Mirror) IsEnabled() bool { return m.Spec.Enabled == nil || *m.Spec.Enabled }

// Runs reports whether the mirror copies: it is enabled and not idle.
func (m *Mirror) Runs() bool { return m.IsEnabled() && m.Idle == nil }

// HasLife reports whether the mirror begins or ends by itself.
func (m *Mirror) HasLife() bool {
	return m.Spec.StartAt != nil || m.Spec.StopAfter != nil || m.Spec.TTL != ""
}

// Lasts is for how long the mirror copies, from its beginning; 0 = without such an end.
func (m *Mirror) Lasts() time.Duration {
	if m.Spec.StopAfter == nil {
		return 0
	}
	return period(m.Spec.StopAfter.Duration)
}

// TimeToLive is after what time the mirror is deleted; 0 = it is not.
func (m *Mirror) TimeToLive() time.Duration { return period(m.Spec.TTL) }

// Counts reports whether the mirror ends after so many packets or bytes.
func (m *Mirror) Counts() bool {
	return m.Spec.StopAfter != nil && (m.Spec.StopAfter.Packets > 0 || m.Spec.StopAfter.Bytes > 0)
}

// period is a duration of a document that was validated.
func period(text string) time.Duration {
	d, err := duration.Parse(text)
	if err != nil {
		return 0
	}
	return d
}

// LifeStatus is what became of the life of a mirror, over all hosts.
type LifeStatus struct {
	BeganAt *time.Time `json:"beganAt,omitempty"` // when the first host copied; absent = none has yet
	// EndsAt is when stopAfter.duration is over.
	EndsAt  *time.Time `json:"endsAt,omitempty"`
	EndedAt *time.Time `json:"endedAt,omitempty"`
	// DeletedAt is when ttl is over and the mirror is deleted.
	DeletedAt *time.Time `json:"deletedAt,omitempty"`
	// Packets and Bytes were accepted since it began, and LeftPackets and LeftBytes are to come, where stopAfter counts them.
	Packets     int64 `json:"packets,omitempty"`
	Bytes       int64 `json:"bytes,omitempty"`
	LeftPackets int64 `json:"leftPackets,omitempty"`
	LeftBytes   int64 `json:"leftBytes,omitempty"`
}
