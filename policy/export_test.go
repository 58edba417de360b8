package policy

import "net/netip"

// Strangers are who stands for everybody in Consequences.
func Strangers() (v4, v6 int, all []netip.Addr) { return strangers4, strangers6, strangers[:] }
