#!/usr/bin/env bash
# Checks everything that the system is deployed by, with the programs that will read it:
# each step is a script of its own in steps/, and can be run by itself. What they need
# is kept in the cache folder.
#
#   test/deploy/check.sh [STEP...]
set -euo pipefail
cd "$(dirname "$0")"
steps=("$@")
if [ ${#steps[@]} = 0 ]; then
	for file in steps/*.sh; do steps+=("$(basename "$file" .sh)"); done
fi
failed=()
for step in "${steps[@]}"; do
	began=$SECONDS
	if bash "steps/$step.sh"; then
		echo "$step: holds, after $((SECONDS - began)) s"
	else
		echo "$step: DOES NOT HOLD, after $((SECONDS - began)) s"
		failed+=("$step")
	fi
done
[ ${#failed[@]} = 0 ] || { echo "check-deploy failed: ${failed[*]}" >&2; exit 1; }
