package xrpc

import (
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// The queries over foreign collections: those outside pub.layers that the
// operator has asked the indexer to follow. What is answered is what the index
// holds; nothing is fetched from the network on the way.
const (
	getExternal  syntax.NSID = "pub.layers.integration.getExternal"
	listExternal syntax.NSID = "pub.layers.integration.listExternal"
)

// getExternal answers one foreign record. The parameter fresh has no effect:
// the firehose keeps the index at the network's state, and fromCache says that
// this is where the answer is from.
func (s *Service) getExternal(ep *Endpoint) echo.HandlerFunc {
	return func(c echo.Context) error {
		args, err := ep.Parse(c.Request().URL.RawQuery)
		if err != nil {
			return err
		}
		asked, err := s.target(c.Request().Context(), &args)
		if err != nil {
			return err
		}
		if !s.foreign(asked.Collection) {
			return declared("BadRequest", "%s is not an external collection: this appview has a query of its own for it", asked.Collection)
		}
		return s.answerRecord(c, asked, "NotFound", func(b []byte, r *record.Record) []byte {
			b = appendExternalFields(append(b, '{'), r)
			return append(b, `,"fromCache":true}`...)
		})
	}
}

// listExternal answers a page of foreign records.
func (s *Service) listExternal(ep *Endpoint) echo.HandlerFunc {
	return func(c echo.Context) error {
		args, err := ep.Parse(c.Request().URL.RawQuery)
		if err != nil {
			return err
		}
		query := store.ForeignQuery{Limit: args.Limit()}
		var filters []filter
		for _, name := range []string{"did", "nsid", "nsidPrefix"} {
			value, ok := args.Text(name)
			if !ok {
				continue
			}
			filters = append(filters, filter{name: name, values: []string{value}})
			switch name {
			case "did":
				did := syntax.DID(value)
				query.Repo = &did
			case "nsid":
				query.Collection = &value
			case "nsidPrefix":
				query.CollectionPrefix = &value
			}
		}
		scope := newScope(ep.query.NSID, filters)
		if query.After, err = args.after(scope); err != nil {
			return err
		}
		page, err := s.reads.ListForeign(c.Request().Context(), query)
		if err != nil {
			return err
		}
		return AnswerJSON(c, func(b []byte) []byte {
			return appendPage(b, "records", page.Records, nextCursor(scope, page), appendExternal)
		})
	}
}

// foreign tells whether a collection is none of the lexicons' own.
func (s *Service) foreign(nsid syntax.NSID) bool {
	own, ok := s.catalog.Collection(nsid)
	return !ok || own.Foreign
}

// appendExternal appends {"nsid":…,"uri":…,"cid":…,"value":…}.
func appendExternal(b []byte, r *record.Record) []byte {
	return append(appendExternalFields(append(b, '{'), r), '}')
}

func appendExternalFields(b []byte, r *record.Record) []byte {
	b = append(b, `"nsid":"`...)
	b = append(b, r.Key.Collection...)
	b = append(b, `",`...)
	return appendFields(b, r)
}
