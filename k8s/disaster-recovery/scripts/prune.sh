#!/bin/sh
# Drops base backups that are not needed to go back BACKUP_DAYS (30), and the log before
# the oldest that is left. Backups that were not completed go after a day.
set -eu
. "$(dirname "$0")/objects.sh"
days=${BACKUP_DAYS:-30}
ago() { date -u -d "@$(($(date -u +%s) - $1 * 86400))" +%Y%m%dT%H%M%SZ; }
edge=$(ago "$days") yesterday=$(ago 1)

# Names are times, so they sort. The newest complete one before the edge is the one
# from which the days after the edge are reached.
before='' after='' broken=''
for entry in $(list base); do
	name=${entry%/}
	found=0
	has "base/$name/complete" || found=$?
	[ "$found" -le 1 ] || die "the store does not answer"
	if [ "$found" = 1 ]; then
		expr "$name" '<' "$yesterday" >/dev/null && broken="$broken $name"
	elif expr "$name" '<' "$edge" >/dev/null; then
		before="$before $name"
	else
		after="$after $name"
	fi
done
# shellcheck disable=SC2086 # lists of words without blanks
set -- $before
while [ $# -gt 1 ]; do
	drop "base/$1/"
	say "dropped base/$1"
	shift
done
for name in $broken; do
	drop "base/$name/"
	say "dropped base/$name, which was never completed"
done
# shellcheck disable=SC2086
set -- "$@" $after
[ $# -gt 0 ] || exit 0

scratch
get "base/$1/label" "$SCRATCH/label" || die "base/$1 has no label"
first=$(sed -n 's/^START WAL LOCATION: .*(file \([0-9A-F]\{24\}\))$/\1/p' "$SCRATCH/label")
[ -n "$first" ] || die "the label of base/$1 does not name its first segment"
# The timeline, the first eight digits, does not count: a segment of a later one follows.
position=$(printf %s "$first" | cut -c 9-24)
list wal | while read -r entry; do
	case $entry in
	*.history.gz) continue ;; # small, and needed to find the way between timelines
	esac
	if expr "$(printf %s "$entry" | cut -c 9-24)" '<' "$position" >/dev/null; then
		drop "wal/$entry"
	fi
done
