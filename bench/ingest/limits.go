package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/bench/scratch"
)

// limits are what each part can do with nothing around it, a second: the same work
// with as little program as possible, in the same minute, on the same machine.
type limits struct {
	Signatures float64 `json:"signatures"` // K-256 verifications, one goroutine
	Copies     float64 `json:"copies"`     // rows of records, into equal tables with equal indexes
	Documents  float64 `json:"documents"`  // Elasticsearch documents
	Subgraphs  float64 `json:"subgraphs"`  // Neo4j records: nodes, with their edges
}

// sample is how many records the limits of the stores are measured with.
const sample = 20_000

// measureLimits uses what a measurement has left in the stores.
func measureLimits(ctx context.Context, s *scratch.Stores, program string) (*limits, error) {
	l := &limits{}
	var err error
	if l.Signatures, err = signatureRate(time.Second); err != nil {
		return l, fmt.Errorf("limit of signatures: %w", err)
	}
	if l.Copies, err = copyRate(ctx, s, program); err != nil {
		return l, fmt.Errorf("limit of PostgreSQL: %w", err)
	}
	if l.Documents, err = documentRate(ctx, s); err != nil {
		return l, fmt.Errorf("limit of Elasticsearch: %w", err)
	}
	if l.Subgraphs, err = subgraphRate(ctx, s); err != nil {
		return l, fmt.Errorf("limit of Neo4j: %w", err)
	}
	return l, nil
}

func signatureRate(d time.Duration) (float64, error) {
	private, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		return 0, err
	}
	public, err := private.PublicKey()
	if err != nil {
		return 0, err
	}
	content := []byte(strings.Repeat("c", 200)) // about what a commit has
	signature, err := private.HashAndSign(content)
	if err != nil {
		return 0, err
	}
	began, n := time.Now(), 0
	for ; time.Since(began) < d; n++ {
		if err := public.HashAndVerify(content, signature); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

const copyBatch = 1000

// copyRate copies rows into a second database with the same partitions and indexes.
func copyRate(ctx context.Context, s *scratch.Stores, program string) (float64, error) {
	rows, err := s.Database.Query(ctx, `
		SELECT version, sort_key, indexed_at, created_at, collection, did, rkey, cid, rev, filter::text, value::text
		FROM records ORDER BY version LIMIT $1`, sample)
	if err != nil {
		return 0, err
	}
	values, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
	if err != nil {
		return 0, err
	}
	address, err := s.MakeDatabase(ctx, s.DatabaseName()+"_bare")
	if err != nil {
		return 0, err
	}
	migrate := exec.CommandContext(ctx, program, "migrate", "--database-url", address)
	migrate.Env = append(os.Environ(), "ELASTICSEARCH_URL=", "NEO4J_URL=")
	if output, err := migrate.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("layers migrate: %w\n%s", err, output)
	}
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	columns := []string{"version", "sort_key", "indexed_at", "created_at", "collection", "did", "rkey", "cid", "rev", "filter", "value"}
	began := time.Now()
	for from := 0; from < len(values); from += copyBatch {
		part := values[from:min(from+copyBatch, len(values))]
		if _, err := conn.CopyFrom(ctx, pgx.Identifier{"records"}, columns, pgx.CopyFromRows(part)); err != nil {
			return 0, err
		}
	}
	return float64(len(values)) / time.Since(began).Seconds(), nil
}
