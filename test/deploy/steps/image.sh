# The Dockerfile, as hadolint sees it.
set -euo pipefail
. "$(dirname "$0")/../tools.sh"
get_python
cd "$root"
"$hadolint" Dockerfile k8s/disaster-recovery/Dockerfile
