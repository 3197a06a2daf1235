#!/bin/sh
# Takes a base backup of the server that PGHOST, PGPORT, PGUSER and PGPASSWORD name, and
# drops what is older than BACKUP_DAYS (30). The login needs REPLICATION.
set -eu
. "$(dirname "$0")/objects.sh"
scratch
name=$(date -u +%Y%m%dT%H%M%SZ)
# Without the log: the archive has it. pg_basebackup returns once it does.
pg_basebackup --pgdata="$SCRATCH/base" --format=tar --gzip --wal-method=none --checkpoint=fast \
	--manifest-checksums=SHA256 --label="$name" --no-password
tar -xzOf "$SCRATCH/base/base.tar.gz" backup_label >"$SCRATCH/base/label"
# When it ended: only later points can be gone back to.
date -u +%Y-%m-%dT%H:%M:%SZ >"$SCRATCH/base/complete"
for file in base.tar.gz backup_manifest label complete; do # complete is the last
	put "$SCRATCH/base/$file" "base/$name/$file"
done
for file in "$SCRATCH"/base/*.tar.gz; do
	[ "${file##*/}" = base.tar.gz ] || die "the server has tablespaces, which are not kept: ${file##*/}"
done
say "base/$name is complete: $(wc -c <"$SCRATCH/base/base.tar.gz") bytes"
"$(dirname "$0")/prune.sh"
