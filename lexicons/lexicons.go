// Package lexicons embeds the lexicon files of pub.layers.*: the contract that
// everything else in this module is derived from.
package lexicons

import "embed"

// FS holds every lexicon under pub/, by the path that its NSID spells
// (pub.layers.corpus.corpus is pub/layers/corpus/corpus.json).
//
//go:embed pub
var FS embed.FS
