package coordinator

// BeginCut leaves a cut on its way, as happens when one is due.
func (f *Fleet) BeginCut() error { return f.enduring(f.beginCut) }
