# Every Dockerfile, as hadolint sees it.
set -euo pipefail
. "$(dirname "$0")/../tools.sh"
get_python
cd "$root"
git ls-files -z Dockerfile '**/Dockerfile' | xargs -0 -n 1 "$hadolint" --failure-threshold warning
