#!/usr/bin/env bash
# Waits until a deployment runs a commit, and asks it whether it answers as it should:
# await.sh URL COMMIT
set -euo pipefail
url=${1:?the environment has no URL} commit=$2
for ((i = 0; i < 60; i++)); do
	version=$(curl --silent --max-time 10 "$url/xrpc/_health" | jq -r .version 2>/dev/null || true)
	[[ $version == "$commit" ]] && break
	echo "it runs '$version'"
	sleep 15
done
[[ $version == "$commit" ]] || { echo "$url does not run $commit after 15 minutes" >&2; exit 1; }
records=()
while read -r uri; do
	[[ -z $uri || $uri == \#* ]] || records+=(--record "$uri")
done <<<"${KNOWN_RECORDS:-}"
go run ./cmd/layers check --url "$url" ${METRICS_URL:+--metrics-url "$METRICS_URL"} "${records[@]}"
