#!/bin/sh
# Dumps Neo4j's database, and drops dumps that are older than NEO4J_DUMP_DAYS (14). The
# community edition must be stopped for that, so this runs before it starts, in an init
# container of its pod. Neo4j starts whatever becomes of the dump: the graph can be built
# anew from PostgreSQL, and an old dump is worth less than a graph that answers.
set -u
. "$(dirname "$0")/objects.sh"
data=${NEO4J_DATA:-/data}

dump() {
	[ -d "$data/databases/neo4j" ] || {
		say "there is no database yet"
		return 0
	}
	newest=$(list neo4j | tail -n 1)
	now=$(date -u +%s)
	if [ -n "$newest" ]; then
		stamp=${newest%.dump}
		taken=$(date -u -d "$(echo "$stamp" | sed 's/^\(....\)\(..\)\(..\)T\(..\)\(..\)\(..\)Z$/\1-\2-\3T\4:\5:\6Z/')" +%s) || return
		# A pod that starts again and again need not dump each time.
		[ $((now - taken)) -ge 72000 ] || return 0
	fi
	neo4j-admin database dump neo4j --to-path="$SCRATCH" || return
	name=$(date -u -d "@$now" +%Y%m%dT%H%M%SZ)
	put "$SCRATCH/neo4j.dump" "neo4j/$name.dump" || return
	say "neo4j/$name.dump is there: $(wc -c <"$SCRATCH/neo4j.dump") bytes"
	edge=$(date -u -d "@$((now - ${NEO4J_DUMP_DAYS:-14} * 86400))" +%Y%m%dT%H%M%SZ)
	for entry in $(list neo4j); do
		if expr "$entry" '<' "$edge" >/dev/null; then drop "neo4j/$entry"; fi
	done
}

scratch
dump || say "no dump was made; Neo4j starts without"
