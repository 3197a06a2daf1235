package rest

import (
	"context"
	"errors"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Bounds of one question of a corpus' export.
const (
	membersAtOnce   = 50
	referringAtOnce = 200
	loadedAtOnce    = 50
)

func (s *Service) exportRoutes() []Route {
	var rows []Route
	for _, t := range s.types {
		fields := s.shapeParams()[0]
		rows = append(rows, Route{
			Path: "/" + t.name + "/export", ID: "export." + t.name, Tag: t.name, collection: t.collection.NSID, Stream: true,
			Summary:     "All of " + t.name + ", one record a line",
			Description: "The whole list, newest first, as it is while it is read. The last line has `end`: complete, or error with the `cursor` to go on with. Without such a line the answer was cut off.",
			Params:      append(t.filters(), Cursor(), fields),
			Answer:      Answer{Description: "Lines of JSON.", Lines: lineSchema()},
			Handler:     s.list(t),
		})
	}
	corpus := s.typeOf(corpora)
	return append(rows, Route{
		Path: "/corpora/{uri}/export", ID: "export.corpus", Tag: corpus.name, Stream: true,
		Summary: "A corpus with all that belongs to it, one record a line",
		Description: "The corpus; what it refers to; and, for each of its members, the membership, the expression, and every record that is listed by its expression (segmentations, annotation layers, cluster sets, alignments). " +
			"What two members share may come twice. The last line has `end`.",
		Params:  []Param{corpus.uri()},
		Answer:  Answer{Description: "Lines of JSON.", Lines: lineSchema()},
		Handler: s.exportCorpus,
	})
}

// streamList streams a list from where it is; with a limit, no more than one page.
func (s *Service) streamList(c *Call, list *xrpc.Listing, asked shape) error {
	if len(asked.expand) > 0 {
		return xrpc.InvalidRequest("parameter %q: lines have one record each; ask for JSON to have others beside it", "expand")
	}
	_, limited := c.Text("limit")
	return s.streamed(c, func(out *stream) error {
		for {
			var records []record.Record
			var cursor string
			err := out.ask(func(ctx context.Context) (err error) {
				records, cursor, err = list.Page(ctx)
				return err
			})
			if err != nil {
				return err
			}
			for _, r := range records {
				v, err := asked.view(r)
				if err != nil {
					return err
				}
				if err := out.write(v); err != nil {
					return err
				}
			}
			if err := out.flush(); err != nil {
				return err
			}
			out.cursor = cursor
			if cursor == "" || limited {
				return nil
			}
		}
	})
}

// exportCorpus streams a corpus.
func (s *Service) exportCorpus(c *Call) error {
	corpus, err := s.findSoon(c, s.typeOf(corpora))
	if err != nil {
		return err
	}
	return s.streamed(c, func(out *stream) error {
		if err := out.write(viewOf(corpus)); err != nil {
			return err
		}
		if err := s.streamTargets(out, []record.Key{corpus.Key}, nil); err != nil {
			return err
		}
		query := store.Query{
			Collection: memberships, Limit: membersAtOnce,
			Match: []store.Match{{Name: "corpusRef", Values: []string{corpus.Key.String()}}},
		}
		for {
			var page store.Page
			err := out.ask(func(ctx context.Context) (err error) {
				page, err = s.reads.List(ctx, query)
				return err
			})
			if err != nil {
				return err
			}
			if err := s.streamMembers(out, page.Records); err != nil {
				return err
			}
			if query.After = page.Next; page.Next == nil {
				return nil
			}
		}
	})
}

// findSoon is [Service.find] for a request that has all the time of a stream.
func (s *Service) findSoon(c *Call, t *recordType) (record.Record, error) {
	whole := c.Request()
	ctx, cancel := context.WithTimeout(c.Ctx(), partTime)
	defer cancel()
	c.SetRequest(whole.WithContext(ctx))
	defer c.SetRequest(whole)
	return s.find(c, t)
}

// streamMembers writes memberships, their expressions, and what is listed by those.
func (s *Service) streamMembers(out *stream, members []record.Record) error {
	var keys []record.Key
	for _, m := range members {
		if err := out.write(viewOf(m)); err != nil {
			return err
		}
		keys = append(keys, m.Key)
	}
	if len(keys) == 0 {
		return nil
	}
	var named []store.Reference
	err := out.ask(func(ctx context.Context) (err error) {
		named, err = s.reads.Targets(ctx, keys, []string{"expressionRef"}, len(keys))
		return err
	})
	if err != nil {
		return err
	}
	if err := s.streamRecords(out, keysOf(named)); err != nil {
		return err
	}
	return s.streamDependents(out, named)
}

// streamDependents writes the records that are listed by any of some expressions.
func (s *Service) streamDependents(out *stream, named []store.Reference) error {
	var targets []string
	for _, r := range named {
		targets = append(targets, r.Target)
	}
	var after record.Key
	for {
		var keys []record.Key
		err := out.ask(func(ctx context.Context) (err error) {
			keys, err = s.reads.Referring(ctx, targets, s.listedByExpression(), after, referringAtOnce)
			return err
		})
		if err != nil {
			return err
		}
		if err := s.streamRecords(out, keys); err != nil {
			return err
		}
		if len(keys) < referringAtOnce {
			return nil
		}
		after = keys[len(keys)-1]
	}
}

// listedByExpression are the collections with a list that always names an expression.
func (s *Service) listedByExpression() (all []syntax.NSID) {
	for _, t := range s.types {
		if slices.ContainsFunc(t.collection.Lists, func(l catalog.Listing) bool {
			return slices.ContainsFunc(l.Required, func(f catalog.Filter) bool { return f.Name == "expression" })
		}) {
			all = append(all, t.collection.NSID)
		}
	}
	return all
}

// streamTargets writes what records refer to at some paths, or at all.
func (s *Service) streamTargets(out *stream, sources []record.Key, paths []string) error {
	var found []store.Reference
	err := out.ask(func(ctx context.Context) (err error) {
		found, err = s.reads.Targets(ctx, sources, paths, mostReferences)
		return err
	})
	if err != nil {
		return err
	}
	return s.streamRecords(out, keysOf(found))
}

// streamRecords writes records in the order of their keys as given, few at a time
// where they are large. What is not there is left out.
func (s *Service) streamRecords(out *stream, keys []record.Key) error {
	for together := range slices.Chunk(keys, loadedAtOnce) {
		if err := s.streamTogether(out, together); err != nil {
			return err
		}
	}
	return out.flush()
}

func (s *Service) streamTogether(out *stream, keys []record.Key) error {
	var loaded map[record.Key]record.Record
	err := out.ask(func(ctx context.Context) (err error) {
		loaded, err = s.reads.LoadAll(ctx, keys)
		return err
	})
	if errors.Is(err, store.ErrTooMuch) && len(keys) > 1 {
		half := len(keys) / 2
		if err := s.streamTogether(out, keys[:half]); err != nil {
			return err
		}
		return s.streamTogether(out, keys[half:])
	}
	if err != nil {
		return err
	}
	for _, key := range keys {
		if r, ok := loaded[key]; ok {
			if err := out.write(viewOf(r)); err != nil {
				return err
			}
		}
	}
	return nil
}
