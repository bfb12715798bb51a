// Package security says who a client is, and what it may do: principals, credentials and
// rights, as values. It reads no socket and no disk, and knows neither gateway nor cluster.
package security
