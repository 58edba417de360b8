package flow

// U128 is an unsigned 128-bit number: the widest match field (IPv6 addresses, ct_label, xxregs). Narrower fields sit in
// the low bits.
type U128 struct{ Hi, Lo uint64 }

// U64 widens v.
func U64(v uint64) U128 { return U128{Lo: v} }

// Ones returns n low-order one bits; n is clamped to 0..128.
func Ones(n int) U128 {
	switch {
	case n <= 0:
		return U128{}
	case n < 64:
		return U128{Lo: 1<<n - 1}
	case n < 128:
		return U128{Hi: 1<<(n-64) - 1, Lo: ^uint64(0)}
	}
	return U128{^uint64(0), ^uint64(0)}
}

// IsZero reports whether no bit is set.
func (u U128) IsZero() bool { return u.Hi|u.Lo == 0 }

// And returns the bits set in both.
func (u U128) And(v U128) U128 { return U128{u.Hi & v.Hi, u.Lo & v.Lo} }

// Or returns the bits set in either.
func (u U128) Or(v U128) U128 { return U128{u.Hi | v.Hi, u.Lo | v.Lo} }

// Not returns the complement over 128 bits.
func (u U128) Not() U128 { return U128{^u.Hi, ^u.Lo} }

// Shl shifts towards the high bits; n must be 0..127.
func (u U128) Shl(n int) U128 {
	if n >= 64 {
		return U128{Hi: u.Lo << (n - 64)}
	}
	if n == 0 {
		return u
	}
	return U128{Hi: u.Hi<<n | u.Lo>>(64-n), Lo: u.Lo << n}
}

// Shr shifts towards the low bits; n must be 0..127.
func (u U128) Shr(n int) U128 {
	if n >= 64 {
		return U128{Lo: u.Hi >> (n - 64)}
	}
	if n == 0 {
		return u
	}
	return U128{Hi: u.Hi >> n, Lo: u.Lo>>n | u.Hi<<(64-n)}
}

// Cmp compares as numbers: -1, 0 or +1.
func (u U128) Cmp(v U128) int {
	switch {
	case u.Hi < v.Hi || u.Hi == v.Hi && u.Lo < v.Lo:
		return -1
	case u == v:
		return 0
	}
	return 1
}
