#!/bin/sh
# Puts a base backup into an empty data directory, and has PostgreSQL go on from there by
# the archived log when it is started: to a point in time, or to the end.
#
#   restore-postgres.sh DATA_DIRECTORY ['2026-11-21 12:00:00+00']
#
# Each recovery begins a timeline. To a point that an earlier recovery has left behind,
# RECOVERY_TIMELINE leads: the number of the timeline that the point is on, as 1.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/objects.sh"
data=$1 target=${2:-}
[ -z "$(ls -A "$data" 2>/dev/null)" ] || die "$data is not empty: move away what is there"

limit=99999999T999999Z
if [ -n "$target" ]; then
	limit=$(date -u -d "$target" +%Y%m%dT%H%M%SZ) || die "'$target' is not a time"
fi
scratch
chosen=''
for entry in $(list base); do
	name=${entry%/}
	found=0
	get "base/$name/complete" "$SCRATCH/complete" || found=$?
	[ "$found" -le 1 ] || die "the store does not answer" "$NO_STORE"
	[ "$found" = 0 ] || continue
	ended=$(date -u -d "$(cat "$SCRATCH/complete")" +%Y%m%dT%H%M%SZ)
	expr "$ended" '<=' "$limit" >/dev/null && chosen=$name
done
[ -n "$chosen" ] || die "there is no complete base backup${target:+ that ended before $target}"
say "restoring base/$chosen"
get "base/$chosen/base.tar.gz" "$SCRATCH/base.tar.gz" || die "base/$chosen cannot be fetched"
get "base/$chosen/backup_manifest" "$SCRATCH/backup_manifest" || die "base/$chosen has no manifest"
mkdir -p "$data"
chmod 700 "$data"
tar -xzf "$SCRATCH/base.tar.gz" -C "$data"
if command -v pg_verifybackup >/dev/null; then
	pg_verifybackup --no-parse-wal --quiet --manifest-path="$SCRATCH/backup_manifest" "$data"
else
	say "pg_verifybackup is not here: the files are not checked against the manifest"
fi
# A backup that was taken after a recovery has the settings of that.
sed '/^restore_command /d; /^recovery_target/d' "$data/postgresql.auto.conf" >"$SCRATCH/auto.conf"
cat "$SCRATCH/auto.conf" >"$data/postgresql.auto.conf"
{
	echo "restore_command = '$here/restore-wal.sh %f %p'"
	echo "recovery_target_timeline = '${RECOVERY_TIMELINE:-latest}'"
	if [ -n "$target" ]; then
		echo "recovery_target_time = '$target'"
		echo "recovery_target_action = 'promote'"
	fi
} >>"$data/postgresql.auto.conf"
touch "$data/recovery.signal"
say "start PostgreSQL on $data: it recovers ${target:+to $target }from the archive, and then takes writes"
