package querytest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"

	"github.com/layers-pub/layers-appview/internal/query"
)

// texts are the judged set: in each script some that are about a thing, some that
// mention it, and some of other things.
var texts = []struct{ rkey, title, language, text string }{
	{"yo-tone", "Ohùn ní èdè Yorùbá", "yo-NG", "Èdè Yorùbá ní ohùn mẹ́ta: òkè, àárín àti ìsàlẹ̀."},
	{"yo-food", "Oúnjẹ wa", "yo", "Àwọn ará Ọ̀yọ́ fẹ́ràn iyán àti ọbẹ̀ ẹ̀fọ́. Ọkà dára pẹ̀lú ewédú."},
	{"yo-town", "Ìlú Ìbàdàn", "yo", "Ìbàdàn jẹ́ ìlú ńlá ní ilẹ̀ Yorùbá."},
	{"vi-market", "Chợ nổi", "vi", "Người đi chợ nổi từ sáng sớm ở Cần Thơ."},
	{"de-street", "Straßenverkehr", "de", "Auf der Straße fahren viele Fahrräder. Größe zählt nicht."},
	{"fr-forest", "La forêt", "fr", "Les élèves vont à l'école près de la forêt; un cœur bat."},
	{"ru-reading", "Чтение книг", "ru", "Ещё одна книга о чтении. Самолёт летит высоко."},
	{"ru-weather", "Погода", "ru", "Сегодня хорошая погода, и мы читаем на улице. Книга лежит дома."},
	{"uk-city", "Місто Київ", "uk", "Київ — столиця України, їжа тут смачна."},
	{"ar-book", "الكِتَابُ الجَدِيد", "ar", "قَرَأَ الوَلَدُ الكِتَابَ في المَدْرَسَةِ."},
	{"ar-school", "المدرسة", "ar", "ذهبت البنت إلى المدرسة، وأكل أحمد التفاح."},
	{"fa-garden", "باغ ایرانی", "fa", "باغ ایرانی زیبا است و کتاب\u200cها آنجا هستند."},
	{"he-peace", "שָׁלוֹם", "he", "שָׁלוֹם עֲלֵיכֶם, חֲבֵרִים."},
	{"hi-language", "हिन्दी भाषा", "hi", "हिन्दी भारत में बोली जाने वाली भाषा है। किताब पढ़ना अच्छा है।"},
	{"hi-book", "किताब की दुकान", "hi", "यह दुकान किताबें बेचती है।"},
	{"hi-day", "दिन", "hi", "आज का दिन बहुत सुंदर है।"},
	{"zh-university", "北京大学", "zh", "北京大学是中国的一所大学，位于北京。"},
	{"zh-capital", "北京", "zh", "北京是中国的首都，人口很多。大家学习汉语。"},
	{"ja-language", "日本語の文法", "ja", "日本語の助詞は「が」と「は」です。カタカナもあります。"},
	{"ja-key", "かぎ", "ja", "鍵をかける。かきを食べる。"},
	{"ko-language", "한국어 문법", "ko", "한국어는 교착어이다."},
	{"th-food", "อาหารไทย", "th", "คนไทยชอบกินข้าวผัดและต้มยำกุ้ง"},
	{"got-son", "Gothic", "got", "𐍃𐌿𐌽𐌿𐍃 𐌼𐌴𐌹𐌽𐍃 😀 and ﬁne 𝔣𝔯𝔞𝔨𝔱𝔲𝔯"},
	{"en-forest", "Forest walks", "en", "Walking in the forest is well-known to help. Don't hurry."},
	{"en-mention", "City life", "en", "There are many streets, some shops, a river with two bridges, tall houses, and at the very end of the longest road a small forest."},
}

// judgements are queries and what comes first, then what else may come.
var judgements = []struct {
	query string
	first string
	rest  []string
}{
	{"yorùbá", "yo-tone", []string{"yo-town"}},
	{"ohùn", "yo-tone", nil},
	{"ọkà", "yo-food", nil},
	{"ibadan", "yo-town", nil},
	{"Ọ̀yọ́", "yo-food", nil},
	{"chợ nổi", "vi-market", nil},
	{`"can tho"`, "vi-market", nil},
	{"strasse", "de-street", nil},
	{"grösse", "de-street", nil},
	{"forêt", "fr-forest", nil},
	{"ecole", "fr-forest", nil},
	{"coeur", "fr-forest", nil},
	{"l'école", "fr-forest", nil},
	{"книг*", "ru-reading", []string{"ru-weather"}},
	{"самолет", "ru-reading", nil},
	{"погода", "ru-weather", nil},
	{"київ", "uk-city", nil},
	{"الكتاب", "ar-book", nil},
	{"المدرسه", "ar-school", []string{"ar-book"}},
	{"احمد", "ar-school", nil},
	{"كتاب*", "fa-garden", nil},
	{"ايراني", "fa-garden", nil},
	{"שלום", "he-peace", nil},
	{"हिन्दी", "hi-language", nil},
	{"किताब", "hi-book", []string{"hi-language"}},
	{"पढना", "hi-language", nil},
	{"दिन", "hi-day", nil},
	{"大学", "zh-university", nil},
	{"北京", "zh-capital", []string{"zh-university"}},
	{"汉语", "zh-capital", nil},
	{"文法", "ja-language", nil},
	{"かき", "ja-key", nil},
	{"ｶﾀｶﾅ", "ja-language", nil},
	{"한국어", "ko-language", nil},
	{"ข้าวผัด", "th-food", nil},
	{"𐍃𐌿𐌽𐌿𐍃", "got-son", nil},
	{"😀", "got-son", nil},
	{"fine", "got-son", nil},
	{"fraktur", "got-son", nil},
	{"forest", "en-forest", []string{"en-mention"}},
	{"wellknown", "", nil},
	{"well-known", "en-forest", nil},
	{"know*", "en-forest", nil},
	{`"the forest is"`, "en-forest", nil},
	{`"forest the"`, "", nil},
	{"don't", "en-forest", nil},
}

// forms are other ways to write the same.
var forms = map[string]func(string) string{
	"as it is": func(s string) string { return s },
	"NFC":      norm.NFC.String,
	"NFD":      norm.NFD.String,
	"capital":  strings.ToUpper,
	"small":    strings.ToLower,
}

func (s *suite) judged(t *testing.T) {
	var all []Projected
	for i, text := range texts {
		written := text.text
		if i%2 == 1 {
			written = norm.NFD.String(written) // records come in either form
		}
		all = append(all, s.projected(t, writer, Expression, text.rkey, map[string]any{
			"id": text.title, "kind": "sentence", "text": written, "languages": []any{text.language},
		}))
	}
	s.Put(t, all...)
	for _, j := range judgements {
		for form, write := range forms {
			if form == "capital" && strings.Contains(j.query, "ß") {
				continue
			}
			found := s.found(t, query.Question{Text: write(j.query)})
			if j.first == "" {
				require.Empty(t, found, "%s, %s", j.query, form)
				continue
			}
			require.NotEmpty(t, found, "%s, %s", j.query, form)
			require.Equal(t, j.first, found[0], "%s, %s: %v", j.query, form, found)
			require.ElementsMatch(t, append([]string{j.first}, j.rest...), found, "%s, %s", j.query, form)
		}
	}
}

// language tries what the query language can say, on the judged set.
func (s *suite) language(t *testing.T) {
	for text, want := range map[string][]string{
		`forest -well-known -foret lang:en`:    {"en-mention"},
		`lang:yo`:                              {"yo-tone", "yo-food", "yo-town"},
		`lang:yo-NG`:                           {"yo-tone"},
		`language:YO ohun`:                     {"yo-tone"},
		`kind:sentence ibadan`:                 {"yo-town"},
		`kind:Sentence ibadan`:                 {}, // terms are exact
		`type:expression погода`:               {"ru-weather"},
		`type:pub.layers.corpus.corpus погода`: {},
		`id:"Forest walks"`:                    {"en-forest"},
		`id:walks`:                             {"en-forest"},
		`text:walks`:                           {},
		`-id:city forest`:                      {"en-forest"},
		`lang:en -"the forest"`:                {"en-mention"},
		`-lang:en foret`:                       {"fr-forest"},
	} {
		require.ElementsMatch(t, want, s.found(t, query.Question{Text: text}), text)
	}
	require.ElementsMatch(t, []string{"ar-book", "ar-school", "fa-garden"}, s.found(t, query.Question{Languages: []string{"ar", "fa"}}))
	require.ElementsMatch(t, []string{"fa-garden"}, s.found(t, query.Question{Languages: []string{"ar", "fa"}, Filters: []query.Filter{{Field: "id", Values: []string{"باغ"}}}}))
}

// highlights holds offsets to the text that was written.
func (s *suite) highlights(t *testing.T) {
	const text = "𐍃𐌿𐌽𐌿𐍃 😀😀 o\u0323ka\u0300 ﬁnd 北京大学 𝔣𝔯𝔞𝔨𝔱𝔲𝔯 ọkà end"
	s.put(t, writer, Expression, "offsets", map[string]any{"id": "x1", "kind": "sentence", "text": text})
	for asked, want := range map[string][]string{
		"lang:en -forest x1":   nil,
		"x1 ọkà":               {"x1", "o\u0323ka\u0300", "ọkà"},
		"x1 find":              {"x1", "ﬁnd"},
		"x1 大学":                {"x1", "大学"},
		`x1 "fraktur ọkà end"`: {"x1", "𝔣𝔯𝔞𝔨𝔱𝔲𝔯 ọkà end"},
		"x1 😀":                 {"x1", "😀", "😀"},
		"x1 sunus*":            nil,
		"x1 𐍃𐌿*":               {"x1", "𐍃𐌿𐌽𐌿𐍃"},
	} {
		answer, err := s.Search(t.Context(), query.Question{Text: asked})
		require.NoError(t, err)
		if want == nil {
			require.Empty(t, answer.Hits, asked)
			continue
		}
		require.Len(t, answer.Hits, 1, asked)
		var got []string
		for _, h := range answer.Hits[0].Highlights {
			whole := map[string]string{"text": text, "id": "x1"}[h.Path]
			require.Equal(t, h.Match, whole[h.ByteStart:h.ByteEnd], asked)
			require.Equal(t, h.Match, string([]rune(whole)[h.CharStart:h.CharEnd]), asked)
			require.Contains(t, whole, h.Before+h.Match+h.After)
			got = append(got, h.Match)
		}
		require.Equal(t, want, got, asked)
	}
	s.put(t, writer, Expression, "offsets", nil)
}
