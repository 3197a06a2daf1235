# Prometheus, Alertmanager and the collector take their files; each alert fires when it
# should, and not when it should not; rules, dashboards and the documentation name
# what the programs export.
set -euo pipefail
. "$(dirname "$0")/../tools.sh"
get_prometheus
get_otelcol
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
cp "$root/docker/prometheus.yml" "$root/k8s/monitoring/rules.yaml" "$made"
promtool check config "$made/prometheus.yml"
(cd "$root/k8s/monitoring" && promtool test rules rules_test.yaml rules_slow_test.yaml)
amtool check-config "$root/k8s/monitoring/alertmanager-config.yaml"
# A critical alert wakes somebody, a warning does not.
[ "$(amtool config routes test --config.file="$root/k8s/monitoring/alertmanager-config.yaml" severity=critical)" = on-call ]
[ "$(amtool config routes test --config.file="$root/k8s/monitoring/alertmanager-config.yaml" severity=warning)" = operators ]
"$otelcol" validate --config "$root/docker/otel-collector-config.yaml"
(cd "$root" && go test ./test/monitoring)
