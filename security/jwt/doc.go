// Package jwt judges tokens (JWT, RFC 7519) that an identity provider of the operator's has signed.
//
// You are here: below package login, for OAUTHBEARER and for Bearer in a WebSocket's handshake.
// Everything that decides comes from the node's configuration; of a token nothing but its claims
// and the name of its key is believed: no URL and no key in it (CVE-2025-27817), and no algorithm
// that is not in the list. The package fetches nothing: keys come through a function.
package jwt
