package query

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Token is a word of a text in the form in which words are compared, and where in
// the text it is.
type Token struct {
	Text       string
	Start, End int // bytes of the text; words of one compatibility character share them
}

const (
	maxToken   = 128  // bytes; what an index takes of a word, with room to spare
	keptToken  = 96   // bytes of a longer word, before its hash
	maxFolding = 4096 // segments that one scan remembers the form of
)

// Scan gives the words of a text one by one.
//
// Words are compared without regard to case, normal form and compatibility forms
// (NFKC), and to marks that only modify a letter: accents, tones, points, harakat,
// nukta. Vowel signs of Indic and other scripts are letters of theirs, and stay. In
// scripts that put no spaces between words, and in Hangul, every character is a
// word, and so is a symbol such as an emoji: a word of several characters is then a
// phrase, found wherever it occurs.
func Scan(text string) iter.Seq[Token] {
	return func(yield func(Token) bool) {
		s := scanner{yield: yield}
		for pos := 0; pos < len(text) && !s.done; {
			if ascii(text, pos) {
				s.ascii(text[pos], pos)
				pos++
				continue
			}
			n := norm.NFKC.NextBoundaryInString(text[pos:], true)
			if n <= 0 {
				n = len(text) - pos
			}
			s.segment(text[pos:pos+n], pos)
			pos += n
		}
		s.flush()
	}
}

// Normalise is the words of a text, joined by spaces.
func Normalise(text string) string {
	var b strings.Builder
	for t := range Scan(text) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.Text)
	}
	return b.String()
}

// Words is the words of a text.
func Words(text string) []string { return strings.Fields(Normalise(text)) }

// ascii tells whether the byte at pos is a character that nothing joins.
func ascii(text string, pos int) bool {
	return text[pos] < utf8.RuneSelf && (pos+1 == len(text) || text[pos+1] < utf8.RuneSelf)
}

type scanner struct {
	yield   func(Token) bool
	done    bool
	fold    cases.Caser
	folding map[string]string // segments to their form

	word       []byte
	single     bool // word is a character of a script without spaces
	start, end int
}

func (s *scanner) ascii(c byte, pos int) {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		s.letter(rune(c), pos, pos+1)
	case 'A' <= c && c <= 'Z':
		s.letter(rune(c)+'a'-'A', pos, pos+1)
	default:
		s.flush()
	}
}

// segment takes a character with what normalisation joins to it.
func (s *scanner) segment(segment string, pos int) {
	form, ok := s.folding[segment]
	if !ok {
		if s.folding == nil {
			s.folding, s.fold = map[string]string{}, cases.Fold()
		}
		form = s.form(segment)
		if len(s.folding) < maxFolding {
			s.folding[segment] = form
		}
	}
	end := pos + len(segment)
	for _, r := range form {
		switch {
		case unicode.IsMark(r) && len(s.word) > 0:
			s.word, s.end = utf8.AppendRune(s.word, r), end
		case unspaced(r):
			s.flush()
			s.letter(r, pos, end)
			s.single = true
		case unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r):
			s.letter(r, pos, end)
		default:
			s.flush()
		}
	}
	if form == "" && len(s.word) > 0 {
		s.end = end // what was left out belongs to the word before
	}
}

// letter adds to the word, or begins one.
func (s *scanner) letter(r rune, pos, end int) {
	if s.single {
		s.flush()
	}
	if len(s.word) == 0 {
		s.start = pos
	}
	s.word, s.end = utf8.AppendRune(s.word, r), end
}

func (s *scanner) flush() {
	if len(s.word) > 0 && !s.done {
		s.done = !s.yield(Token{Text: bounded(string(s.word)), Start: s.start, End: s.end})
	}
	s.word, s.single = s.word[:0], false
}

// bounded keeps distinct words distinct.
func bounded(word string) string {
	if len(word) <= maxToken {
		return word
	}
	sum := sha256.Sum256([]byte(word))
	return strings.ToValidUTF8(word[:keptToken], "") + hex.EncodeToString(sum[:12])
}

// form is a segment as it is compared; empty where it is nothing but marks and signs
// that do not count.
func (s *scanner) form(segment string) string {
	var kept strings.Builder
	for _, r := range norm.NFKD.String(segment) {
		if !ignored(r) {
			kept.WriteRune(r)
		}
	}
	folded := s.fold.String(kept.String())
	kept.Reset()
	for _, r := range folded {
		if same, ok := alike[r]; ok {
			kept.WriteString(same)
		} else if !ignored(r) {
			kept.WriteRune(r)
		}
	}
	return norm.NFC.String(kept.String())
}

const tatweel = 'ـ'

// modified are the scripts whose non-spacing marks modify letters; those of others
// are vowels and finals of their own. Inherited ones go with any script.
var modified = []*unicode.RangeTable{unicode.Inherited, unicode.Arabic, unicode.Cyrillic, unicode.Greek, unicode.Hebrew, unicode.Latin, unicode.Syriac}

// ignored tells whether a decomposed character makes no difference between words.
func ignored(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return false
	case r == tatweel, unicode.Is(unicode.Cf, r):
		return true
	case r == '\u3099' || r == '\u309A': // voiced kana are letters of their own
		return false
	case !unicode.In(r, unicode.Mn, unicode.Me):
		return false
	default:
		return nukta(r) || unicode.In(r, modified...)
	}
}

// nukta is a dot that makes a variant of an Indic letter, often left out in writing.
func nukta(r rune) bool { return norm.NFD.PropertiesString(string(r)).CCC() == 7 }

// alike are letters that do not decompose but are looked for by another.
var alike = map[rune]string{
	'ł': "l", 'ø': "o", 'đ': "d", 'ħ': "h", 'ŧ': "t", 'ı': "i", 'æ': "ae", 'œ': "oe",
	'ى': "ي", 'ی': "ي", 'ې': "ي", 'ک': "ك", 'ة': "ه", 'ہ': "ه", 'ھ': "ه", 'ٱ': "ا",
	'ँ': "ं",
}

// unspaced tells whether a character is of a script that puts no spaces between words,
// or a word by itself.
func unspaced(r rune) bool {
	return r == 'ー' || unicode.Is(unicode.So, r) || unicode.IsLetter(r) &&
		unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar, unicode.Bopomofo, unicode.Yi)
}
