package wall

// Conjoin has the firewall multiply out no rule that has more than one dimension, and, with shares, share clauses wherever rules can. It
// must be called before the first Compile.
func (f *Firewall) Conjoin(shares bool) {
	f.maxProduct = 0
	if shares {
		f.manyClasses = 0
	}
}

// Crowd has rules multiplied out beyond so many conjunctions of a class, as long as that has taken fewer flows than surplus. It must be
// called before the first Compile.
func (f *Firewall) Crowd(walked, surplus int) { f.maxWalked, f.maxSurplus = walked, surplus }

// Narrow leaves few numbers: one block of classes, and so many for addresses and for services. It must be called before the first Compile.
func (f *Firewall) Narrow(numbers int) {
	f.classes.numbers.end, f.atlas.most, f.services.most = 2, numbers, numbers
}

// Shut returns the endpoints for which there was no class number.
func (f *Firewall) Shut() []string { return f.Members(shutNumber) }
