#!/bin/sh
# Puts a snapshot in the place of our indexes: restore-elasticsearch.sh NAME
#
# It is older than PostgreSQL. Run `layers verify --to search --repair` afterwards.
set -eu
. "$(dirname "$0")/elasticsearch.sh"
for index in $(ask GET "_cat/indices/$PREFIX-*?h=index&expand_wildcards=all"); do
	ask DELETE "$index"
done
ask POST "_snapshot/$REPOSITORY/$1/_restore?wait_for_completion=true" \
	"{\"indices\": \"$PREFIX-*\", \"include_global_state\": false, \"include_aliases\": true}" |
	tee /dev/stderr | grep -q '"failed":0' || die "not every shard of $1 was restored"
