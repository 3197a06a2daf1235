package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/jackc/pgx/v5"
	"github.com/multiformats/go-multihash"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

// written is what the network's accounts have written up to an event: what an index
// must show, and nothing else. 0 is all.
func written(world *simulate.World, through int64) map[record.Key]syntax.CID {
	out := map[record.Key]syntax.CID{}
	for entry := range world.Records(simulate.View{Through: through}) {
		if strings.HasPrefix(string(entry.Key.Collection), "pub.layers.") {
			out[entry.Key] = entry.CID
		}
	}
	return out
}

// shown is what a database shows, by plain SQL, and the cursor that it is at. The CIDs are
// those of the values, worked out here.
func shown(ctx context.Context, url string) (records map[record.Key]syntax.CID, cursor int64, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if err := tx.QueryRow(ctx, "SELECT coalesce(max(seq), 0) FROM cursor").Scan(&cursor); err != nil {
		return nil, 0, err
	}
	rows, err := tx.Query(ctx, "SELECT collection, did, rkey, value::text FROM records r WHERE NOT EXISTS (SELECT FROM repos WHERE repos.did = r.did AND NOT active)")
	if err != nil {
		return nil, 0, err
	}
	records = map[record.Key]syntax.CID{}
	var key record.Key
	var value []byte
	_, err = pgx.ForEachRow(rows, []any{&key.Collection, &key.DID, &key.Rkey, &value}, func() error {
		is, err := address(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		records[key] = is
		return nil
	})
	return records, cursor, err
}

// address is the CID of a value in JSON.
func address(value []byte) (syntax.CID, error) {
	decoded, err := atdata.UnmarshalJSON(value)
	if err != nil {
		return "", err
	}
	block, err := atdata.MarshalCBOR(decoded)
	if err != nil {
		return "", err
	}
	sum, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
	return syntax.CID(sum.String()), err
}

// differ says how what is shown is not what was written.
func differ(have, want map[record.Key]syntax.CID) error {
	var lines []string
	count := 0
	add := func(format string, args ...any) {
		if count++; count <= 5 {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	for key, wanted := range want {
		switch got, ok := have[key]; {
		case !ok:
			add("missing: %s", key)
		case got != wanted:
			add("%s is %s, should be %s", key, got, wanted)
		}
	}
	for key := range have {
		if _, ok := want[key]; !ok {
			add("should not be there: %s", key)
		}
	}
	if count > 0 {
		return fmt.Errorf("%d records are not what was written:\n%s", count, strings.Join(lines, "\n"))
	}
	return nil
}
