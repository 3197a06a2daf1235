#!/bin/sh
# Loads a dump in the place of Neo4j's database, which must be stopped:
# restore-neo4j.sh [20261121T031500Z]. Without a name it is the newest.
#
# It is older than PostgreSQL. Run `layers verify --to graph --repair` afterwards.
set -eu
. "$(dirname "$0")/objects.sh"
name=${1:-}
[ -n "$name" ] || name=$(list neo4j | tail -n 1)
name=${name%.dump}
[ -n "$name" ] || die "there is no dump"
scratch
get "neo4j/$name.dump" "$SCRATCH/neo4j.dump" || die "neo4j/$name.dump cannot be fetched"
neo4j-admin database load neo4j --from-path="$SCRATCH" --overwrite-destination=true
say "neo4j/$name.dump is loaded"
