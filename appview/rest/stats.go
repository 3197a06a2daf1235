package rest

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store/statistics"
)

// counter answers from the statistics; *statistics.Reader does.
type counter interface {
	Corpus(context.Context, record.Key) (*statistics.Corpus, time.Time, error)
	Expression(context.Context, record.Key) (*statistics.Expression, time.Time, error)
	Labels(context.Context, statistics.LabelQuery) ([]statistics.Label, bool, time.Time, error)
	Densities(context.Context) (references, relations []statistics.Density, at time.Time, err error)
}

const (
	experiments      syntax.NSID = "pub.layers.judgment.experimentDef"
	agreementReports syntax.NSID = "pub.layers.judgment.agreementReport"

	keepStatistics = 15 * time.Minute

	topLabels      = 20  // beside other figures
	mostAgreements = 100 // reports, and experiments that they are looked for of
)

// statsRoutes are none where nothing is counted.
func (s *Service) statsRoutes() []Route {
	if s.stats == nil {
		return nil
	}
	corpus, expression := s.typeOf(corpora), s.typeOf(expressions)
	const age = " Figures are of the moment `refreshedAt`; until they were computed for the first time, the answer is 503."
	filters := []Param{
		Text("kind", "Only labels of layers of this kind.", "span"), Text("subkind", "Only labels of layers of this subkind.", "ner"),
		Limit(statistics.MaxLabels, 100), Cursor(),
	}
	labels := Answer{Description: "A page of labels.", Schema: labelsSchema(), Example: labelPage{RefreshedAt: exampleMoment, Labels: exampleLabels()}}
	rows := []Route{
		{
			Path: "/stats", ID: "stats", Summary: "What the whole index has",
			Description: "Records of each type; expressions with their languages and how much of them is annotated; the most frequent labels; how densely records refer to one another, and the graphs that edges state." + age,
			Answer:      Answer{Description: "The figures.", Schema: overviewSchema(), Example: exampleOverview()}, Handler: s.statsOverview,
		},
		{
			Path: "/stats/labels", ID: "stats.labels", Summary: "How often each label is used",
			Description: "By kind and subkind of layers, the most frequent first. After a refresh between two pages a label may come again or be passed over." + age,
			Params:      filters, Answer: labels, Handler: s.statsLabels,
		},
		{
			Path: "/stats/corpora/{uri}", ID: "stats.corpus", Summary: "What a corpus has",
			Description: "Its expressions, their languages and splits; how much of their text is annotated, by kind of layer; its most frequent labels; and how far annotators agree, as agreement reports on experiments over the corpus state it. `statistics` is null for a corpus that came after the moment of the figures." + age,
			Params:      []Param{corpus.uri()},
			Answer:      Answer{Description: "The figures.", Schema: corpusStatsSchema(), Example: exampleCorpusStats()}, Handler: s.statsCorpus,
			Cache: Cache{Of: []syntax.NSID{corpora, experiments, agreementReports}},
		},
		{
			Path: "/stats/corpora/{uri}/labels", ID: "stats.corpus.labels", Summary: "How often each label is used in a corpus",
			Description: "By kind and subkind of layers, the most frequent first. After a refresh between two pages a label may come again or be passed over." + age,
			Params:      append([]Param{corpus.uri()}, filters...), Answer: labels, Handler: s.statsLabels, Cache: Cache{Of: []syntax.NSID{corpora}},
		},
		{
			Path: "/stats/expressions/{uri}", ID: "stats.expression", Summary: "How much of an expression is annotated",
			Description: "Bytes of its text that spans of annotations cover, and tokens that annotations name, of the tokenizations that their layers count in; together and by kind of layer. What is marked twice counts once. `coverage` is null for an expression that came after the moment of the figures." + age,
			Params:      []Param{expression.uri()},
			Answer:      Answer{Description: "The figures.", Schema: expressionStatsSchema(), Example: exampleExpressionStats()}, Handler: s.statsExpression,
			Cache: Cache{Of: []syntax.NSID{expressions}},
		},
	}
	for i := range rows {
		rows[i].Tag = "stats"
		rows[i].Cache.For, rows[i].Cache.Of = keepStatistics, append(rows[i].Cache.Of, statistics.Changed)
	}
	return rows
}

// uncounted says what to do where there are no figures yet.
func uncounted(err error) error {
	if errors.Is(err, statistics.ErrNone) {
		return &xrpc.Error{
			Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", RetryAfter: 30 * time.Second,
			Message: "the statistics have not been computed yet, which happens soon after the indexer has started; ask again",
		}
	}
	return err
}

// coverage is what layers mark of texts.
type coverage struct {
	Kind          string   `json:"kind,omitempty"`
	Subkind       string   `json:"subkind,omitempty"`
	Expressions   int64    `json:"expressions"`
	Layers        int64    `json:"layers"`
	Annotations   int64    `json:"annotations"`
	Bytes         int64    `json:"bytes"`
	CoveredBytes  int64    `json:"coveredBytes"`
	ByteShare     *float64 `json:"byteShare"`
	Tokens        int64    `json:"tokens"`
	CoveredTokens int64    `json:"coveredTokens"`
	TokenShare    *float64 `json:"tokenShare"`
}

func coverageOf(p statistics.Part) coverage {
	return coverage{
		Kind: p.Kind, Subkind: p.Subkind, Expressions: p.Expressions, Layers: p.Layers, Annotations: p.Annotations,
		Bytes: p.Bytes, CoveredBytes: p.CoveredBytes, ByteShare: share(p.CoveredBytes, p.Bytes),
		Tokens: p.Tokens, CoveredTokens: p.CoveredTokens, TokenShare: share(p.CoveredTokens, p.Tokens),
	}
}

// share is nil where there is nothing to have a share of.
func share(part, whole int64) *float64 {
	if whole == 0 {
		return nil
	}
	return pointer(float64(part) / float64(whole))
}

func coveragesOf(parts []statistics.Part) []coverage {
	out := make([]coverage, 0, len(parts))
	for _, p := range parts {
		out = append(out, coverageOf(p))
	}
	return out
}

// label is how often layers of a kind use a label.
type label struct {
	Label       string `json:"label"`
	Kind        string `json:"kind"`
	Subkind     string `json:"subkind,omitempty"`
	Annotations int64  `json:"annotations"`
	Layers      int64  `json:"layers"`
}

func labelsOf(found []statistics.Label) []label {
	out := make([]label, 0, len(found))
	for _, l := range found {
		out = append(out, label{Label: l.Label, Kind: l.Kind, Subkind: l.Subkind, Annotations: l.Annotations, Layers: l.Layers})
	}
	return out
}

type topLabel struct {
	Labels []label `json:"top"`
	More   bool    `json:"more"`
}

func (s *Service) topLabels(c *Call, corpus record.Key) (topLabel, error) {
	found, more, _, err := s.stats.Labels(c.Ctx(), statistics.LabelQuery{Corpus: corpus, Limit: topLabels})
	return topLabel{Labels: labelsOf(found), More: more}, err
}

// corpusFigures are those of a corpus or of the whole index.
type corpusFigures struct {
	Memberships int64              `json:"memberships"`
	Dangling    int64              `json:"dangling"`
	Annotators  int64              `json:"annotators"`
	Languages   []statistics.Count `json:"languages"`
	Splits      []statistics.Count `json:"splits"`
	Coverage    coverage           `json:"coverage"`
	ByKind      []coverage         `json:"byKind"`
	MoreKinds   bool               `json:"moreKinds"`
}

func figuresOf(c *statistics.Corpus) *corpusFigures {
	if c == nil {
		return nil
	}
	return &corpusFigures{
		Memberships: c.Memberships, Dangling: c.Dangling, Annotators: c.Annotators, Languages: c.Languages, Splits: c.Splits,
		Coverage: coverageOf(c.Part), ByKind: coveragesOf(c.Parts), MoreKinds: c.PartsOmitted,
	}
}

type corpusStats struct {
	URI         syntax.ATURI   `json:"uri"`
	RefreshedAt time.Time      `json:"refreshedAt"`
	Statistics  *corpusFigures `json:"statistics"`
	Labels      topLabel       `json:"labels"`
	Agreement   agreement      `json:"agreement"`
}

// statsCorpus answers /stats/corpora/{uri}.
func (s *Service) statsCorpus(c *Call) error {
	corpus, err := s.find(c, s.typeOf(corpora))
	if err != nil {
		return err
	}
	counted, at, err := s.stats.Corpus(c.Ctx(), corpus.Key)
	if err != nil {
		return uncounted(err)
	}
	answer := corpusStats{URI: corpus.Key.URI(), RefreshedAt: at, Statistics: figuresOf(counted)}
	if answer.Labels, err = s.topLabels(c, corpus.Key); err != nil {
		return uncounted(err)
	}
	if answer.Agreement, err = s.agreement(c, corpus.Key); err != nil {
		return err
	}
	return c.Answer(answer)
}

// agreement is what reports say of experiments over a corpus.
type agreement struct {
	Reports []view `json:"reports"`
	More    bool   `json:"more"`
}

// agreement reads the reports as they are now.
func (s *Service) agreement(c *Call, corpus record.Key) (agreement, error) {
	over, err := s.reads.Referring(c.Ctx(), []string{corpus.String()}, []syntax.NSID{experiments}, record.Key{}, mostAgreements+1)
	if err != nil || len(over) == 0 {
		return agreement{Reports: []view{}}, err
	}
	var targets []string
	for _, key := range over[:min(len(over), mostAgreements)] {
		targets = append(targets, key.String())
	}
	keys, err := s.reads.Referring(c.Ctx(), targets, []syntax.NSID{agreementReports}, record.Key{}, mostAgreements+1)
	if err != nil {
		return agreement{}, err
	}
	answer := agreement{Reports: []view{}, More: len(over) > mostAgreements || len(keys) > mostAgreements}
	views, err := s.views(c.Ctx(), keys[:min(len(keys), mostAgreements)])
	for _, key := range keys {
		if v, ok := views[key.URI()]; ok {
			answer.Reports = append(answer.Reports, v)
		}
	}
	return answer, err
}

type expressionStats struct {
	URI         syntax.ATURI `json:"uri"`
	RefreshedAt time.Time    `json:"refreshedAt"`
	Coverage    *coverage    `json:"coverage"`
	ByKind      []coverage   `json:"byKind"`
	MoreKinds   bool         `json:"moreKinds"`
}

// statsExpression answers /stats/expressions/{uri}.
func (s *Service) statsExpression(c *Call) error {
	expression, err := s.find(c, s.typeOf(expressions))
	if err != nil {
		return err
	}
	counted, at, err := s.stats.Expression(c.Ctx(), expression.Key)
	if err != nil {
		return uncounted(err)
	}
	answer := expressionStats{URI: expression.Key.URI(), RefreshedAt: at, ByKind: []coverage{}}
	if counted != nil {
		answer.Coverage = pointer(coverageOf(counted.Part))
		answer.ByKind, answer.MoreKinds = coveragesOf(counted.Parts), counted.PartsOmitted
	}
	return c.Answer(answer)
}

type labelPage struct {
	RefreshedAt time.Time `json:"refreshedAt"`
	Labels      []label   `json:"labels"`
	Cursor      string    `json:"cursor,omitempty"`
}

// statsLabels answers /stats/labels and /stats/corpora/{uri}/labels.
func (s *Service) statsLabels(c *Call) error {
	q := statistics.LabelQuery{Limit: c.Limit()}
	scope := []string{"labels"}
	if _, given := c.Text("uri"); given {
		corpus, err := s.find(c, s.typeOf(corpora))
		if err != nil {
			return err
		}
		q.Corpus, scope = corpus.Key, append(scope, corpus.Key.String())
	}
	for name, into := range map[string]**string{"kind": &q.Kind, "subkind": &q.Subkind} {
		if value, given := c.Text(name); given {
			*into = &value
		}
	}
	scope = append(scope, "kind", c.Word("kind"), "subkind", c.Word("subkind"))
	var err error
	if q.After, err = labelAfter(c, scope); err != nil {
		return err
	}
	found, more, at, err := s.stats.Labels(c.Ctx(), q)
	if err != nil {
		return uncounted(err)
	}
	answer := labelPage{RefreshedAt: at, Labels: labelsOf(found)}
	if more {
		last := found[len(found)-1]
		answer.Cursor = encodeToken(scope, strconv.FormatInt(last.Annotations, 10), last.Label, last.Kind, last.Subkind)
	}
	return c.Answer(answer)
}

func labelAfter(c *Call, scope []string) (*statistics.Label, error) {
	parts, err := c.after(scope, 4)
	if parts == nil || err != nil {
		return nil, err
	}
	n, err := strconv.ParseInt(parts[0], 10, 64)
	for _, p := range parts[1:] {
		if err != nil || !storable(p) {
			return nil, errToken
		}
	}
	return &statistics.Label{Annotations: n, Label: parts[1], Kind: parts[2], Subkind: parts[3]}, nil
}
