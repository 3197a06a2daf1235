# The chart is sound for the settings of each environment, and two releases of
# Kubernetes would take what it renders.
set -euo pipefail
. "$(dirname "$0")/../tools.sh"
get_helm
get_kubeconform
get_schemas
chart=$root/k8s/helm/layers-appview
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for values in "$chart"/values.yaml "$chart"/ci/*.yaml; do
	"$helm" lint --strict --quiet -f "$values" "$chart"
	"$helm" template layers "$chart" -n layers -f "$values" >"$rendered/$(basename "$values")"
done
for version in $kubernetes_versions; do
	kubeconform_strict "$version" "$rendered"
done
