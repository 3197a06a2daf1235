// Package traffic decides which requests are let in: so many at a time in this
// process ([Limits]), and so many a minute from each caller ([Quotas]). Both count by
// [Group], so that a run on the dear routes leaves the cheap ones alone.
package traffic

// Group are routes that cost alike.
type Group string

// The groups. A route without one is of [Records].
const (
	Records    Group = "records"    // gets and lists, of XRPC and REST
	References Group = "references" // who refers to what, and composites
	Search     Group = "search"
	Complete   Group = "autocomplete"
	Graph      Group = "graph"
	Statistics Group = "stats"
	Streams    Group = "streams" // exports and subscriptions, which count themselves
	Admin      Group = "admin"
	Open       Group = "" // probes and documents, which are never limited
)

// Groups are those that are limited.
var Groups = []Group{Records, References, Search, Complete, Graph, Statistics, Streams, Admin}
