package reconcile

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/layers-pub/layers-appview/indexer/project"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// examine reads every value and holds it to what PostgreSQL says of it elsewhere.
func (r *run) examine(ctx context.Context) error {
	for _, c := range r.collections {
		tables := slices.Contains(r.targets, record.Tables) && slices.Contains(project.Targets(c), record.Tables)
		for after := (record.Key{}); ; {
			records, err := r.stores.Records.Scan(ctx, c.NSID, after, loadPage)
			if err != nil {
				return err
			}
			for _, rec := range records {
				after = rec.Key
				r.report.Examined++
				if err := r.examineRecord(ctx, c, rec, tables); err != nil {
					return err
				}
			}
			if len(records) < loadPage {
				break
			}
		}
	}
	return nil
}

func (r *run) examineRecord(ctx context.Context, c *catalog.Collection, rec record.Record, tables bool) error {
	refs, err := r.checkValue(rec)
	if err != nil {
		r.differ(Difference{Kind: Damaged, Key: rec.Key, Detail: err.Error()})
		return nil //nolint:nilerr // the error is the finding
	}
	for _, ref := range refs {
		there, err := r.refers(ctx, rec.Key, ref)
		if err != nil {
			return err
		}
		if !there {
			r.differ(Difference{Kind: References, Key: rec.Key, Detail: fmt.Sprintf("no reference at %s to %s", ref.Path, ref.Target)})
		}
	}
	if !tables {
		return nil
	}
	return r.checkAnnotations(ctx, c, rec)
}

func (r *run) differ(d Difference) {
	if len(r.report.Differences) < maxListed {
		r.report.Differences = append(r.report.Differences, d)
		return
	}
	r.report.Unlisted++
}

// checkValue goes the way back from the stored JSON to the block and its CID, and
// returns the references that the block has.
func (r *run) checkValue(rec record.Record) ([]record.Ref, error) {
	value, err := atdata.UnmarshalJSON(rec.Value)
	if err != nil {
		return nil, fmt.Errorf("decoding the value: %w", err)
	}
	block, err := atdata.MarshalCBOR(value)
	if err != nil {
		return nil, fmt.Errorf("encoding the value: %w", err)
	}
	sum, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
	if err != nil {
		return nil, fmt.Errorf("hashing the value: %w", err)
	}
	if sum.String() != rec.CID.String() {
		return nil, fmt.Errorf("the value's CID is %s, not %s", sum, rec.CID)
	}
	checked, err := r.stores.Catalog.Check(rec.Key, block)
	if err != nil {
		return nil, err
	}
	refs := slices.Clone(checked.Refs)
	for _, link := range checked.Links { // in the same table
		refs = append(refs, record.Ref{Path: link.Path, Target: syntax.ATURI(link.Target)})
	}
	return refs, nil
}

// samePlaces is how many of one record's references to the same target are looked at.
const samePlaces = 100

// refers tells whether a reference is in the table.
func (r *run) refers(ctx context.Context, key record.Key, ref record.Ref) (bool, error) {
	rows, err := r.stores.Records.Referrers(ctx, string(ref.Target), store.Referrer{Key: key}, samePlaces)
	if err != nil {
		return false, err
	}
	return slices.Contains(rows, store.Referrer{Key: key, Path: ref.Path}), nil
}

// checkAnnotations compares a layer's annotations with their rows. Where they
// differ it looks again, since a change may have come in between.
func (r *run) checkAnnotations(ctx context.Context, c *catalog.Collection, rec record.Record) error {
	detail, err := r.annotationsDiffer(ctx, c, rec)
	for range looks {
		if err != nil || detail == "" {
			return err
		}
		if err := r.pause(ctx, record.Tables); err != nil {
			return err
		}
		rec, err = r.stores.Records.Get(ctx, rec.Key)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err == nil {
			detail, err = r.annotationsDiffer(ctx, c, rec)
		}
	}
	if err != nil || detail == "" {
		return err
	}
	return r.conclude(ctx, comparison{target: record.Tables}, &findings{
		list: []Difference{{Target: record.Tables, Kind: Annotations, Key: rec.Key, Detail: detail}},
	})
}

// annotationsDiffer says how, or nothing.
func (r *run) annotationsDiffer(ctx context.Context, c *catalog.Collection, rec record.Record) (string, error) {
	want, err := project.Annotations(c, rec)
	if err != nil {
		return err.Error(), nil //nolint:nilerr // the error is the finding
	}
	got, err := r.stores.Records.Annotations(ctx, rec.Key)
	if err != nil {
		return "", err
	}
	if len(want) != len(got) {
		return fmt.Sprintf("%d annotations in %d rows", len(want), len(got)), nil
	}
	for i := range want {
		if !reflect.DeepEqual(storable(want[i]), got[i]) {
			return fmt.Sprintf("annotation %d is not its row", i), nil
		}
	}
	return "", nil
}

// storable is an annotation as the table has it: texts without U+0000.
func storable(a record.Annotation) record.Annotation {
	for _, s := range []*string{&a.UUID, &a.Label, &a.Value, &a.Text, &a.AnchorKind} {
		*s = strings.ReplaceAll(*s, "\x00", "\uFFFD")
	}
	return a
}
