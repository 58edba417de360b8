package wall

import "slices"

// Numbers of classes are given in blocks, so that a rule can match those of a block at once (choice.terms): the parts that a class is
// split into stay together.
const (
	blockSize  = 16
	blockMask  = 0xffff &^ (blockSize - 1)
	maxNumbers = 1 << 16
)

// restingNumbers is how many numbers that are free again are not given: a packet that was on its way through conntrack while flows changed
// may carry one.
const restingNumbers = 256

// blocks gives numbers of 16 bits, never one of the first block, in which 0 is: 0 stands for what has no number.
type blocks struct {
	taken   map[uint16]struct{}
	used    [maxNumbers / blockSize]uint8
	resting []uint16 // the last first
	end     int      // blocks from this one on are not given
}

// newBlocks leaves the last block out: shutNumber is in it.
func newBlocks() *blocks {
	b := &blocks{taken: map[uint16]struct{}{}}
	b.end = len(b.used) - 1
	return b
}

// room is how many numbers there are to give.
func (b *blocks) room() int { return (b.end - 1) * blockSize }

func (b *blocks) take(n uint16) {
	b.taken[n] = struct{}{}
	b.used[n/blockSize]++
}

func (b *blocks) free(n uint16) {
	delete(b.taken, n)
	b.used[n/blockSize]--
	b.resting = append([]uint16{n}, b.resting[:min(len(b.resting), restingNumbers-1)]...)
}

// near gives a number of the block that n is in, or else as fresh does.
func (b *blocks) near(n uint16) uint16 {
	if best := b.in(n/blockSize, b.resting); best != 0 {
		b.take(best)
		return best
	}
	return b.fresh()
}

// fresh gives the first number of a block that is not in use, or, when all are, any; 0 = there is none, which takes more endpoints than
// Open vSwitch has ports for (class.shut).
func (b *blocks) fresh() uint16 {
	for _, full := range []uint8{0, blockSize - 1} {
		for block := 1; block < b.end; block++ {
			if b.used[block] > full {
				continue
			}
			if n := b.in(uint16(block), b.resting); n != 0 {
				b.take(n)
				return n
			}
		}
	}
	for block := 1; block < b.end; block++ {
		if n := b.in(uint16(block), nil); n != 0 {
			b.take(n)
			return n
		}
	}
	return 0
}

// in returns the first number of a block that is free and does not rest; 0 = there is none.
func (b *blocks) in(block uint16, resting []uint16) uint16 {
	if b.used[block] == blockSize {
		return 0
	}
	for i := range uint16(blockSize) {
		n := block*blockSize + i
		if _, taken := b.taken[n]; !taken && !slices.Contains(resting, n) {
			return n
		}
	}
	return 0
}

// pool gives the smallest numbers from 1 on; each may be given again at once.
type pool struct {
	taken map[uint16]struct{}
	low   uint16 // all before it are taken
}

// most is how many numbers a pool has; who takes from it sees to it that no more are needed.
const most = maxNumbers - 1

// next returns a number; there must be one.
func (p *pool) next() uint16 {
	for p.low = max(p.low, 1); ; p.low++ {
		if p.take(p.low) {
			return p.low
		}
	}
}

// take takes a certain number and reports whether it was free.
func (p *pool) take(n uint16) bool {
	if _, ok := p.taken[n]; ok {
		return false
	}
	if p.taken == nil {
		p.taken = map[uint16]struct{}{}
	}
	p.taken[n] = struct{}{}
	return true
}

func (p *pool) free(n uint16) {
	delete(p.taken, n)
	p.low = min(p.low, n)
}

// A term matches numbers of 16 bits: those that equal value under mask.
type term struct{ value, mask uint16 }
