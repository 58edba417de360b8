package wall

// Conjoin has the firewall multiply out no rule that has more than one dimension. It must be called before the first Compile.
func (f *Firewall) Conjoin() { f.maxProduct = 0 }
