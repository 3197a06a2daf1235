package query

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
)

func TestNormalise(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		"Hello, WORLD!":         "hello world",
		"naïve Straße ŁÓDŹ Ærø": "naive strasse lodz aero",
		"Èdè Yorùbá ọ̀rọ̀":      "ede yoruba oro",
		"İstanbul ısı":          "istanbul isi",
		"ὈΔΥΣΣΕΎΣ":              "οδυσσευσ",
		"ещё Йод":               "еще иод",
		"الكِتَابُ كـــتاب أحمد":    "الكتاب كتاب احمد",
		"مدرسة على":                 "مدرسه علي",
		"کتاب\u200cها":              "كتابها",
		"שָׁלוֹם":                   "שלום",
		"हिन्दी पढ़ना चाँद":         "हिन्दी पढना चांद",
		"ক্ষমা":                     "ক্ষমা",
		"北京大学ABC":                   "北 京 大 学 abc",
		"かきがき":                      "か き が き",
		"ｶﾞｷﾞ":                      "ガ ギ",
		"한국어":                       "한 국 어",
		"ข้าว":                      "ข้ า ว",
		"ﬁne ½ ＡＢ １２":               "fine 1 2 ab 12",
		"😀👍🏽 x":                     "😀 👍 x",
		"don't e-mail a_b":          "don t e mail a b",
		"a\u200db soft\u00adhyphen": "ab softhyphen",
		"nul\x00byte":               "nul byte",
		"\u0301x":                   "x",
	} {
		require.Equal(t, want, Normalise(text), "%q", text)
	}
}

func TestNormaliseIsBounded(t *testing.T) {
	long := Words(strings.Repeat("x", 5000) + " " + strings.Repeat("x", 5001))
	require.Len(t, long, 2)
	require.NotEqual(t, long[0], long[1])
	for _, w := range append(long, Words("a"+strings.Repeat("\u0301", 100_000)+strings.Repeat("ﷺ", 5000))...) {
		require.LessOrEqual(t, len(w), maxToken)
	}
	require.Len(t, Completions(strings.Repeat("word ", 500)), maxCompletions)
}

func TestHighlightsAreBounded(t *testing.T) {
	p, err := schema().Prepare(Question{Text: "x"})
	require.NoError(t, err)
	marked := p.Marker().Mark([]Passage{{"a", strings.Repeat("x 字", 1000)}, {"b", "x x x x"}})
	require.Len(t, marked, maxHighlights)
	for _, h := range marked {
		require.True(t, utf8.ValidString(h.Before+h.Match+h.After))
	}
}

// FuzzScan holds words to what indexes and queries rely on.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{"ọ̀rọ̀ 北京", "e\u0301\u0327x", "ﷺ½", "\xff\xfe", "क़\u093c", "👩‍🔬", "각각", "'\\%_:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		last := 0
		for token := range Scan(text) {
			require.NotEmpty(t, token.Text)
			require.LessOrEqual(t, len(token.Text), maxToken)
			require.False(t, strings.ContainsAny(token.Text, " '\\%_\n\x00"), "%q", token.Text)
			require.True(t, last <= token.Start && token.Start < token.End && token.End <= len(text), "%q: %+v", text, token)
			last = token.Start
		}
		if utf8.ValidString(text) {
			require.Equal(t, Normalise(norm.NFC.String(text)), Normalise(norm.NFD.String(text)), "%q", text)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	for name, text := range map[string]string{"ascii": "The quick brown fox. ", "yoruba": "Èdè Yorùbá ní ohùn mẹ́ta. ", "han": "北京大学是中国的一所大学。"} {
		text = strings.Repeat(text, 1<<20/len(text))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				Normalise(text)
			}
		})
	}
}
