#!/usr/bin/env bash
# Lints the OpenAPI document of a running `layers dev` with redocly, and has
# schemathesis ask that server everything the document describes. Both tools are
# kept in the cache folder. Needs node, npm and python3.
#
#   test/api/check.sh [options of `schemathesis run`]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/layers
program=${LAYERS_PROGRAM:-$cache/bin/layers}
redocly=2.77.0
schemathesis=4.32.5
port=${LAYERS_CHECK_PORT:-3911}
work=$(mktemp -d)

if [ ! -x "$cache/redocly-$redocly/node_modules/.bin/redocly" ]; then
	npm install --silent --no-fund --no-audit --prefix "$cache/redocly-$redocly" "@redocly/cli@$redocly"
fi
if [ ! -x "$cache/schemathesis-$schemathesis/bin/st" ]; then
	python3 -m venv "$cache/schemathesis-$schemathesis"
	"$cache/schemathesis-$schemathesis/bin/pip" install --quiet "schemathesis==$schemathesis"
fi

"$program" dev --rate 0.1 --listen "127.0.0.1:$port" --metrics-listen "127.0.0.1:$((port + 1))" >"$work/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
until grep -q '^ready' "$work/log"; do
	kill -0 $server 2>/dev/null || { cat "$work/log"; exit 1; }
	sleep 1
done
export LAYERS_API=http://127.0.0.1:$port
curl -fsS "$LAYERS_API/openapi.json" -o "$work/openapi.json"

cd "$here"
REDOCLY_TELEMETRY=off "$cache/redocly-$redocly/node_modules/.bin/redocly" lint --config redocly.yaml "$work/openapi.json"
cd "$work"
PYTHONPATH=$here SCHEMATHESIS_HOOKS=hooks "$cache/schemathesis-$schemathesis/bin/st" --config-file "$here/schemathesis.toml" run "$LAYERS_API/openapi.json" \
	--max-examples 10 "$@"
