#!/bin/sh
# Takes a snapshot of our indexes now, as before an upgrade: snapshot-elasticsearch.sh NAME
set -eu
. "$(dirname "$0")/elasticsearch.sh"
ask PUT "_snapshot/$REPOSITORY/$1?wait_for_completion=true" "{\"indices\": [\"$PREFIX-*\"], \"include_global_state\": false}" |
	tee /dev/stderr | grep -q '"state":"SUCCESS"' || die "the snapshot $1 is not complete"
