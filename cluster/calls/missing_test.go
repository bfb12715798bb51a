package calls

// Missing gives the calls of the table that no function answers.
func (s *Server) Missing() (names []string) {
	for _, row := range Table() {
		if s.answers[row.Kind] == nil {
			names = append(names, row.Name)
		}
	}
	return names
}
