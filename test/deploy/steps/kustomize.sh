# Every kustomization builds, and two releases of Kubernetes would take what comes of it.
set -euo pipefail
. "$(dirname "$0")/../tools.sh"
get_kubeconform
get_schemas
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
for folder in $(kustomizations); do
	name=${folder#"$root"/}
	kubectl kustomize "$folder" >"$built/${name//\//-}.yaml" || { echo "$name does not build" >&2; exit 1; }
done
for version in $kubernetes_versions; do
	echo "Kubernetes $version:"
	kubeconform_strict "$version" "$built"
done
