package policy

import (
	"errors"
	"fmt"
	"strconv"
)

// UnmarshalJSON takes a text or a number.
func (t *VLANTag) UnmarshalJSON(b []byte) error { return textOrNumber(b, (*string)(t)) }

// Number returns the VLAN that copies get; 0 = the tag is one of the words. The error says what is allowed.
func (t VLANTag) Number() (uint16, error) {
	switch t {
	case "", VLANTagKeep, VLANTagStrip:
		return 0, nil
	}
	if !isDigits(string(t)) {
		return 0, errors.New("must be keep, strip or the number of a VLAN")
	}
	n, err := strconv.ParseUint(string(t), 10, 64)
	if err != nil || n < 1 || n > 4094 {
		return 0, fmt.Errorf("VLAN %s is outside the range 1-4094", shorten(string(t)))
	}
	return uint16(n), nil
}

func (c *checker) vlanTag(at pointer, t VLANTag) {
	if _, err := t.Number(); err != nil {
		c.addf(at, string(t), "%s", err)
	}
}
