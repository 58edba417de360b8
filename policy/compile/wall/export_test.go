package wall

// Conjoin has the firewall multiply out no rule that has more than one dimension, and, with shares, share clauses wherever rules can. It
// must be called before the first Compile.
func (f *Firewall) Conjoin(shares bool) {
	f.maxProduct = 0
	if shares {
		f.manyClasses = 0
	}
}
