package record

import "time"

// rateSeconds is how far back the rate of events looks.
const rateSeconds = 10

// rate says how many events were accepted in a second lately. It is not safe for concurrent use.
type rate struct {
	looks [rateSeconds + 1]look // a circle
	at    int                   // of the newest
}

// look is how many there were at a time; the zero value: nobody has looked.
type look struct {
	at       time.Time
	accepted int64
}

// note takes how many there are now, at most once a second.
func (r *rate) note(now time.Time, accepted int64) {
	if last := r.looks[r.at].at; !last.IsZero() && now.Sub(last) < time.Second-time.Second/10 { // a tick may come early
		return
	}
	r.at = (r.at + 1) % len(r.looks)
	r.looks[r.at] = look{now, accepted}
}

// perSecond is the rate of the last seconds, up to now.
func (r *rate) perSecond(now time.Time, accepted int64) float64 {
	for i := 1; i <= len(r.looks); i++ { // oldest first
		x := r.looks[(r.at+i)%len(r.looks)]
		if age := now.Sub(x.at).Seconds(); !x.at.IsZero() && age > 0 && age <= rateSeconds+0.5 {
			return float64(accepted-x.accepted) / age
		}
	}
	return 0
}
