# What is rendered: the same by chart and overlay, with what was asked for and without
# a secret; and that these checks refuse what they should.
set -euo pipefail
. "$(dirname "$0")/../tools.sh"
get_helm
get_kubeconform
get_compose
get_python
get_schemas
cd "$root"
go test -tags deploy -count=1 ./test/deploy
