#!/usr/bin/env bash
# Builds both images, runs them as they will be run, and looks into them:
#
#   go run ./test/stores -only postgres -- test/deploy/image.sh [--again] [--sbom]
#
# As UID 1001, without capabilities, on a root that cannot be written: `layers --help`,
# `migrate` against the real PostgreSQL, `api` until /health and /ready answer, and its
# end by SIGTERM. In the image there is one program and no shell, and nothing of what a
# checkout has beside the source (a canary is planted). --again builds the program a
# second time, elsewhere and without a cache, and compares; --sbom lists what is in it.
#
# The base images are pulled, unless GO_IMAGE and RUNTIME_IMAGE say otherwise. With
# LAYERS_BASES=here they are made from what this machine has: its Go, and a root with
# certificates and nothing else, which is what distroless/static is.
set -euo pipefail
. "$(dirname "$0")/tools.sh"
: "${LAYERS_TEST_DATABASE_URL:?run it by way of make check-image}"
work=$(mktemp -d)
storage=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
container=
finish() {
	[ -z "$container" ] || podman "${storage[@]}" rm --force --time 0 "$container" >/dev/null 2>&1 || true
	buildah "${storage[@]}" rm --all >/dev/null 2>&1 || true
	chmod -R u+w "$work" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT
fail() { echo "image: $*" >&2; exit 1; }

for program in buildah podman runc; do
	command -v $program >/dev/null || apt-get install -y --no-install-recommends buildah podman runc >/dev/null
done

version=$(git -C "$root" describe --tags --always) revision=$(git -C "$root" rev-parse HEAD)
arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision"
	--build-arg "CREATED=$(TZ=UTC git -C "$root" log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)")
if [ "${LAYERS_BASES:-}" = here ]; then
	command -v busybox >/dev/null || apt-get install -y --no-install-recommends busybox-static >/dev/null
	base() { # NAME COMMAND... makes an image of what the command puts into the root
		local name=$1 id mount
		shift
		id=$(buildah "${storage[@]}" from scratch)
		mount=$(buildah "${storage[@]}" mount "$id")
		mkdir -p "$mount/etc/ssl/certs" "$mount/tmp"
		chmod 1777 "$mount/tmp"
		cp /etc/ssl/certs/ca-certificates.crt "$mount/etc/ssl/certs/"
		"$@" "$id" "$mount"
		buildah "${storage[@]}" umount "$id" >/dev/null
		buildah "${storage[@]}" commit --quiet --rm "$id" "$name" >/dev/null
	}
	runtime() { echo nonroot:x:65532:65532:nonroot:/: >"$2/etc/passwd"; }
	compiler() {
		mkdir -p "$2/bin" "$2/usr/local/go" "$2/go/pkg/mod" "$2/root/.cache/go-build"
		cp "$(command -v busybox)" "$2/bin/sh"
		buildah "${storage[@]}" config --env PATH=/usr/local/go/bin:/bin --env GOPATH=/go --env GOCACHE=/root/.cache/go-build \
			--env GOPROXY=off --env GOTOOLCHAIN=local --env HOME=/root "$1"
	}
	base localhost/go compiler
	base localhost/static runtime
	export GO_IMAGE=localhost/go RUNTIME_IMAGE=localhost/static
	arguments+=(--pull=never -v "$(go env GOROOT):/usr/local/go:ro" -v "$(go env GOMODCACHE):/go/pkg/mod" -v "$(go env GOCACHE):/root/.cache/go-build")
fi
[ -z "${GO_IMAGE:-}" ] || arguments+=(--build-arg "GO_IMAGE=$GO_IMAGE")
[ -z "${RUNTIME_IMAGE:-}" ] || arguments+=(--build-arg "RUNTIME_IMAGE=$RUNTIME_IMAGE")

# What git has, and a secret where an operator's would be.
canary=canary-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
mkdir -p "$work/context"
git -C "$root" ls-files -z | tar -C "$root" --null --files-from - -cf - | tar -C "$work/context" -xf -
mkdir -p "$work/context/docker/secrets" "$work/context/bin"
for file in docker/secrets/database-url .env bin/token; do echo "$canary" >"$work/context/$file"; done
for target in indexer api; do
	buildah "${storage[@]}" bud --isolation chroot --layers --quiet --target $target --tag localhost/layers:$target "${arguments[@]}" "$work/context" >"$work/build.log" 2>&1 ||
		{ tail -30 "$work/build.log" >&2; fail "target $target does not build"; }
done
echo "image: both targets are built"

inspect() { podman "${storage[@]}" image inspect --format "$1" localhost/layers:api; }
[ "$(inspect '{{.Config.User}}')" = 1001:1001 ] || fail "its user is $(inspect '{{.Config.User}}')"
[ "$(inspect '{{index .Config.Labels "org.opencontainers.image.revision"}}')" = "$revision" ] || fail "its label does not say the revision"

id=$(buildah "${storage[@]}" from localhost/layers:api)
files=$(buildah "${storage[@]}" mount "$id")
[ "$(find "$files" -type f -perm /111)" = "$files/layers" ] || fail "it has other programs: $(find "$files" -type f -perm /111)"
! grep -rqF "$canary" "$files" || fail "a secret of the checkout is in it"
! buildah "${storage[@]}" inspect localhost/layers:api | grep -qF "$canary" || fail "a secret of the checkout is in its history"
! strings -a "$files/layers" 2>/dev/null | grep -qF "$root/" || fail "the program has a path of this machine in it"
program=$(sha256sum <"$files/layers")
echo "image: $(stat -c %s "$files/layers") bytes of program, nothing else to run, no secret; sha256 ${program%% *}"

flags=(--rm --runtime "$(command -v runc)" --cgroup-manager=cgroupfs --network=host --read-only --read-only-tmpfs=false --cap-drop=ALL
	--security-opt no-new-privileges --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --env "DATABASE_URL=$LAYERS_TEST_DATABASE_URL")
run() { podman "${storage[@]}" run "${flags[@]}" "$@"; }
run localhost/layers:api --help >"$work/help"
grep -q 'layers - index linguistic annotation' "$work/help" || fail "layers --help says something else"
run localhost/layers:api migrate 2>"$work/log" || { cat "$work/log" >&2; fail "migrate"; }

port=${LAYERS_CHECK_PORT:-3921}
container=layers-check-$$
run --name "$container" --detach --env LAYERS_LISTEN=127.0.0.1:"$port" --env LAYERS_METRICS_LISTEN=127.0.0.1:$((port + 1)) --env LAYERS_PUBLIC_URL=https://layers.example \
	localhost/layers:api >/dev/null
for _ in $(seq 120); do
	run localhost/layers:api health --url "http://127.0.0.1:$port/ready" >"$work/ready" 2>&1 && break
	sleep 1
done
grep -q '"status":"ready"' "$work/ready" || { podman "${storage[@]}" logs "$container" >&2; fail "not ready: $(cat "$work/ready")"; }
[ "$(curl -fsS "http://127.0.0.1:$port/health")" = '{"status":"ok"}' ] || fail "/health says something else"

pid=$(podman "${storage[@]}" inspect --format '{{.State.Pid}}' "$container")
status() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$pid/status"; }
[ "$(status Uid)" = 1001 ] && [ "$(status Gid)" = 1001 ] || fail "it runs as $(status Uid):$(status Gid)"
[ "$(status CapEff)" = 0000000000000000 ] && [ "$(status CapBnd)" = 0000000000000000 ] || fail "it has capabilities: $(status CapBnd)"
[ "$(status NoNewPrivs)" = 1 ] || fail "it may get privileges"
awk '$5 == "/" { print $6 }' "/proc/$pid/mountinfo" | grep -q '^ro' || fail "its root can be written"
echo "image: runs as 1001:1001 on a read-only root without capabilities; /health and /ready answer"

podman "${storage[@]}" stop --time 40 "$container" >/dev/null
container=

for option in "$@"; do
	case $option in
	--again)
		mkdir -p "$work/elsewhere/deep"
		cp -r "$work/context" "$work/elsewhere/deep/src"
		(cd "$work/elsewhere/deep/src" && CGO_ENABLED=0 GOCACHE=$work/gocache GOFLAGS="-trimpath -buildvcs=false -mod=readonly" go build \
			-ldflags "-s -w -buildid= -X main.version=$version" -o "$work/again" ./cmd/layers)
		[ "$(sha256sum <"$work/again")" = "$program" ] || fail "a second build is another program"
		echo "image: built again elsewhere, without a cache: the same program"
		;;
	--sbom)
		get_syft
		"$syft" scan --quiet --output spdx-json "file:$files/layers" >"$work/sbom.json"
		grep -q '"pkg:golang/github.com/jackc/pgx/v5@' "$work/sbom.json" || fail "the list of contents has no pgx"
		listed=$(grep -o '"referenceLocator": *"pkg:golang/[^"]*"' "$work/sbom.json" | sort -u | wc -l)
		modules=$(go version -m "$files/layers" | grep -c $'^\tdep\t')
		[ "$listed" -ge "$modules" ] || fail "the list of contents has $listed packages, the program $modules modules"
		echo "image: $listed packages in its list of contents, for $modules modules of the program"
		;;
	*) fail "no option $option" ;;
	esac
done
