#!/usr/bin/env bash
# Names the images of a commit, by their digests and after their signatures are
# checked, in an overlay, and pushes that: deploy.sh staging|prod COMMIT
set -euo pipefail
overlay=$1 commit=$2
image=ghcr.io/layers-pub/layers-appview
[[ $commit =~ ^[0-9a-f]{40}$ ]] || { echo "'$commit' is not a commit" >&2; exit 1; }
bin=${RUNNER_TEMP:?}/bin
export GOBIN=$bin GOFLAGS=
go install github.com/google/go-containerregistry/cmd/crane@v0.22.1
go install github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5
printf %s "${REGISTRY_TOKEN:?}" | "$bin/crane" auth login ghcr.io --username "${GITHUB_ACTOR:?}" --password-stdin
names=()
for target in api indexer; do
	digest=$("$bin/crane" digest "$image:$target-$commit")
	"$bin/cosign" verify "$image@$digest" --certificate-oidc-issuer https://token.actions.githubusercontent.com \
		--certificate-identity-regexp '^https://github.com/layers-pub/layers-appview/\.github/workflows/ci\.yml@refs/heads/main$' >/dev/null
	names+=("layers-appview-$target=$image@$digest")
done
(cd "k8s/overlays/$overlay" && kustomize edit set image "${names[@]}")
kubectl kustomize "k8s/overlays/$overlay" >/dev/null
if git diff --quiet -- k8s/overlays; then
	echo "$overlay runs $commit already"
	exit 0
fi
git config user.name 'github-actions[bot]'
git config user.email '41898282+github-actions[bot]@users.noreply.github.com'
# What is pushed with the workflow's own token starts no workflow: no circle.
git commit -m "deploy: $overlay runs ${commit:0:12}" -- k8s/overlays
for _ in 1 2 3 4 5; do
	git push && exit 0
	git pull --rebase
done
exit 1
