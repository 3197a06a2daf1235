#!/bin/sh
# Says what can be restored: the base backups, and the last archived segment.
set -eu
. "$(dirname "$0")/objects.sh"
scratch
for entry in $(list base); do
	if get "base/${entry%/}/complete" "$SCRATCH/complete"; then
		echo "base/${entry%/} ended $(cat "$SCRATCH/complete")"
	else
		echo "base/${entry%/} is not complete"
	fi
done
echo "last segment: $(list wal | grep -v -e history -e backup | tail -n 1)"
