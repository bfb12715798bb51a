package leading

// What tests of whole clusters look at.

// Surveys is how often others were asked.
func (f *Failover) Surveys() uint64 { return f.surveys.Load() }

// Rests reports whether a group was told to stand here, and not long ago.
func (f *Failover) Rests(group string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.resting[group].IsZero()
}

// Rouse has a group not rest any more.
func (f *Failover) Rouse(group string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.resting, group)
}
