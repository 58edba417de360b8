package event

import "strings"

func verdicts() []Verdict {
	return []Verdict{Forwarded, Dropped, Rejected, Audit, Mirrored, Sampled, Quarantined, Errored}
}

// ParseVerdict reads a verdict as documents spell it or as Compact prints it (DENIED is DROPPED), in any case.
func ParseVerdict(s string) (Verdict, bool) {
	for _, v := range verdicts() {
		if strings.EqualFold(s, string(v)) || strings.EqualFold(s, v.Word()) {
			return v, true
		}
	}
	return Verdict(strings.ToUpper(s)), false
}

// VerdictWords lists what ParseVerdict reads.
func VerdictWords() []string {
	var out []string
	for _, v := range verdicts() {
		out = append(out, string(v))
		if w := v.Word(); w != string(v) {
			out = append(out, w)
		}
	}
	return out
}
