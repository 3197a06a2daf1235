#!/bin/sh
# Fetches one segment for a recovery: restore_command = '/scripts/restore-wal.sh %f %p'.
set -eu
. "$(dirname "$0")/objects.sh"
name=$1 path=$2
scratch
found=0
get "wal/$name.gz" "$SCRATCH/$name.gz" || found=$?
case $found in
0) ;;
1) exit 1 ;;                                             # there is none: PostgreSQL asks beyond the end
*) die "the store does not answer" "$NO_STORE" ;; # must not be taken for the end
esac
gzip -dc "$SCRATCH/$name.gz" >"$path" || die "wal/$name.gz is damaged" "$NO_STORE"
