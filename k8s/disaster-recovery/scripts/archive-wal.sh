#!/bin/sh
# Keeps one segment of PostgreSQL's log: archive_command = '/scripts/archive-wal.sh %p %f'.
# PostgreSQL keeps a segment until this has said that it is safe, and asks again otherwise.
set -eu
. "$(dirname "$0")/objects.sh"
path=$1 name=$2
scratch
gzip -c "$path" >"$SCRATCH/$name.gz"
found=0
get "wal/$name.gz" "$SCRATCH/there.gz" || found=$?
case $found in
0)
	# It was archived before, and PostgreSQL was not told. Anything else under its name
	# belongs to another server, and must not be lost.
	gzip -dc "$SCRATCH/there.gz" | cmp -s - "$path" || die "wal/$name.gz is there with other content: does another server archive here?"
	;;
1) put "$SCRATCH/$name.gz" "wal/$name.gz" ;;
*) die "the store does not answer" ;;
esac
