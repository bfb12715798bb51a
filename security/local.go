package security

// Local is who comes over the Unix socket in a node's data directory: who can read that has all
// that the node has, and so may everything.
var Local = User("LOCAL")
