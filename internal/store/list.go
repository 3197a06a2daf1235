package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Query lists records of a collection, newest first; see [Position].
type Query struct {
	Collection syntax.NSID
	Repo       *syntax.DID // nil: of every repository
	Match      []Match     // all of them have to match
	Limit      int         // at least 1
	After      *Position   // nil: from the beginning
}

// Match picks records by a property in [Change.Filter]: one that equals any of the
// values or, if it is an array, has an element that does. Values are as records
// have them; List makes terms of them.
type Match struct {
	Name   string
	Values []string // at least one
}

// Position is the place of a record in lists. They are ordered by SortAt, latest
// first, which is the earlier of when the record claims to have been made and when
// it was first seen, in microseconds; then by DID, collection and record key. A
// record keeps its place as long as it exists: a walk over pages meets each record
// once, and misses none that was there when the walk began.
type Position struct {
	SortAt     time.Time
	DID        syntax.DID
	Collection syntax.NSID
	Rkey       syntax.RecordKey
}

func (p *Position) sortKey() int64 { return -p.SortAt.UnixMicro() }

// Page is a part of a list.
type Page struct {
	Records []record.Record // as many as asked for, or fewer where they are large
	Next    *Position       // of the last record, to continue after it; nil on the last page
}

// List returns a page of a collection. It is read from a range of an index,
// whatever else the collection holds, if its [Partition] has such a list.
func (r *Reader) List(ctx context.Context, query Query) (Page, error) {
	s, err := r.listStatement(ctx, &query)
	if err != nil {
		return Page{}, fmt.Errorf("list %s: %w", query.Collection, err)
	}
	page, err := r.page(ctx, s, query.Limit)
	if err != nil {
		return Page{}, fmt.Errorf("list %s: %w", query.Collection, ended(ctx, err))
	}
	return page, nil
}

// listStatement puts the statement of a list together. Where a property that is no
// array may have one of several values, each of them has a range of the index of
// its own, and the list is the merger of as many lists.
func (r *Reader) listStatement(ctx context.Context, query *Query) (*statement, error) {
	if query.Limit < 1 {
		return nil, fmt.Errorf("the limit %d is below 1", query.Limit)
	}
	l := lister{statement: &statement{}, query: query, layout: r.layoutOf(ctx, query.Collection), fixed: map[string]string{}}
	l.collection = r.collection(ctx, l.statement, query.Collection)
	if query.Repo != nil {
		l.fixed[leadRepo] = l.arg(*query.Repo)
	}
	choice, err := l.sort()
	if err != nil {
		return nil, err
	}
	if len(choice.Values) == 0 {
		l.write(l.list())
		return l.statement, nil
	}
	var lists []string
	for _, term := range choice.Values {
		l.fixed[choice.Name] = l.arg(term)
		lists = append(lists, l.list())
	}
	l.write("(", strings.Join(lists, ") UNION ALL ("), ") ORDER BY sort_key, did, rkey LIMIT ", fetched(query.Limit))
	return l.statement, nil
}

// lister puts one list's statement together.
type lister struct {
	*statement
	query      *Query
	layout     layout
	collection string            // as SQL
	fixed      map[string]string // what has one value, with its placeholder: the repository, and properties that are no arrays
	several    []Match           // properties that are arrays, with their terms
}

// sort tells apart what has to match. It returns the first property that is no
// array and may have one of several values, if any.
func (l *lister) sort() (choice Match, err error) {
	for _, m := range l.query.Match {
		if len(m.Values) == 0 {
			return choice, fmt.Errorf("no value for %q to match", m.Name)
		}
		terms := make([]string, len(m.Values))
		for i, value := range m.Values {
			terms[i] = record.FilterTerm(value)
		}
		slices.Sort(terms)
		m.Values = slices.Compact(terms)
		_, array := l.layout.arrays[m.Name]
		switch {
		case array, !l.layout.known, len(m.Values) > 1 && choice.Name != "":
			l.several = append(l.several, m) // also right for what is no array, but without an index
			l.mode = planned                 // which way is short depends on how common the elements are
		case len(m.Values) > 1:
			choice = m
		default:
			l.fixed[m.Name] = l.arg(m.Values[0])
		}
	}
	return choice, nil
}

// list is one list, in order.
func (l *lister) list() string {
	conditions := []string{"r.collection = " + l.collection}
	for name, value := range l.fixed {
		conditions = append(conditions, column(name)+" = "+value)
	}
	for _, m := range l.several {
		terms := l.arg(m.Values) + "::text[]"
		matches := array(m.Name) + " ?| " + terms
		if scope, value, ok := l.scope(m.Name); ok {
			// CASE keeps the planner from taking the two conditions for independent, and
			// their product for the number of matches.
			matches = "list_terms(" + scope + ", " + array(m.Name) + ") && list_terms(" + value + ", " + terms + ") AND CASE WHEN " + matches + " THEN true END"
		}
		conditions = append(conditions, matches)
	}
	slices.Sort(conditions) // the same question is the same text, and prepared once
	if l.query.After != nil {
		conditions = append(conditions, l.after(l.query.After))
	}
	return "SELECT " + recordColumns + ", r.sort_key FROM records r WHERE " + strings.Join(append(conditions, ofActive), " AND ") +
		" ORDER BY r.sort_key, r.did, r.rkey LIMIT " + fetched(l.query.Limit)
}

// column is the SQL of what l.fixed has a value for.
func column(name string) string {
	if name == leadRepo {
		return "did"
	}
	return scalar(name)
}

// scope finds an index of an array's elements that this list can use.
func (l *lister) scope(name string) (scope, value string, ok bool) {
	for _, lead := range l.layout.arrays[name] {
		if lead == "" {
			return "''", "''", true
		}
		if value, ok := l.fixed[lead]; ok {
			return scopeOf(lead), value + "::text", true
		}
	}
	return "", "", false
}

// after continues a list. A row comparison with the columns of the index, in their
// order, is where a range of it begins.
func (l *lister) after(at *Position) string {
	if l.query.Repo != nil {
		return "(r.sort_key, r.rkey) > (" + l.arg(at.sortKey()) + ", " + l.arg(at.Rkey) + ")"
	}
	return "(r.sort_key, r.did, r.rkey) > (" + l.arg(at.sortKey()) + ", " + l.arg(at.DID) + ", " + l.arg(at.Rkey) + ")"
}

// fetched is the number of rows to ask for: one more than the limit, to know whether
// a page follows, and rounded up. It is a literal because a plan for "any number of
// rows" would rather sort them all, and rounded because each number is another
// statement to prepare.
func fetched(limit int) string {
	rows := limit + 1
	for _, round := range []int{2, 11, 26, 51, 101, 201} {
		if rows <= round {
			rows = round
			break
		}
	}
	return strconv.Itoa(rows)
}

// pageBytes bounds the values of a page: records may have a megabyte each, and what
// a page holds is in the API's memory at once.
const pageBytes = 16 << 20

// page runs a list's statement. The page ends at limit records, or at the one with
// which it has pageBytes.
func (r *Reader) page(ctx context.Context, s *statement, limit int) (Page, error) {
	rows, err := r.pool.Query(ctx, s.String(), s.arguments()...)
	if err != nil {
		return Page{}, err
	}
	defer rows.Close()
	page := Page{Records: make([]record.Record, 0, min(limit, 201))}
	var last int64
	bytes := 0
	for rows.Next() {
		if n := len(page.Records); n == limit || bytes >= pageBytes {
			key := page.Records[n-1].Key
			page.Next = &Position{SortAt: time.UnixMicro(-last).UTC(), DID: key.DID, Collection: key.Collection, Rkey: key.Rkey}
			break
		}
		rec, err := scanRecord(rows, &last)
		if err != nil {
			return Page{}, err
		}
		page.Records, bytes = append(page.Records, rec), bytes+len(rec.Value)
	}
	rows.Close()
	return page, rows.Err()
}
