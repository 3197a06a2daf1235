#!/bin/sh
# Tells Elasticsearch where snapshots go, and to take one of our indexes each day and keep
# it for SNAPSHOT_DAYS (14). To be run once, and after each change of the settings.
#
#   SNAPSHOT_LOCATION=/snapshots     a directory that path.repo of every node has
#   SNAPSHOT_BUCKET=bucket           or a bucket, whose keys are in the keystore of every node
set -eu
. "$(dirname "$0")/elasticsearch.sh"
if [ -n "${SNAPSHOT_BUCKET:-}" ]; then
	settings="{\"type\": \"s3\", \"settings\": {\"bucket\": \"$SNAPSHOT_BUCKET\", \"base_path\": \"${SNAPSHOT_BASE_PATH:-elasticsearch}\", \"client\": \"${SNAPSHOT_CLIENT:-default}\"}}"
else
	: "${SNAPSHOT_LOCATION:?neither SNAPSHOT_BUCKET nor SNAPSHOT_LOCATION is set}"
	settings="{\"type\": \"fs\", \"settings\": {\"location\": \"$SNAPSHOT_LOCATION\", \"compress\": true}}"
fi
ask PUT "_snapshot/$REPOSITORY" "$settings"
[ "${1:-}" != --repository-only ] || exit 0
ask PUT "_slm/policy/$REPOSITORY-daily" "{
	\"schedule\": \"0 30 1 * * ?\", \"name\": \"<$REPOSITORY-{now/d}>\", \"repository\": \"$REPOSITORY\",
	\"config\": {\"indices\": [\"$PREFIX-*\"], \"include_global_state\": false},
	\"retention\": {\"expire_after\": \"${SNAPSHOT_DAYS:-14}d\", \"min_count\": 3, \"max_count\": 60}}"
