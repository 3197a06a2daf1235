#!/usr/bin/env bash
# Gets Prometheus and the collector, and runs the programs under their eyes. Takes a
# quarter of an hour, seven minutes of which the stream has to stand still.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/deploy/tools.sh
get_prometheus
get_otelcol
export OTELCOL=$otelcol
exec go run ./test/stores -- go test -tags monitoring -timeout 40m -v ./test/monitoring/live "$@"
