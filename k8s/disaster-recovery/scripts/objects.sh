# shellcheck shell=sh
# Where backups go. Source it: . ./objects.sh
#
# BACKUP_STORE is a directory (/backup) or a destination of rclone (s3:bucket/layers,
# with RCLONE_CONFIG_S3_TYPE=s3 and so on in the environment). An object is there whole or
# not at all, whenever the program that puts it is killed.

LC_ALL=C # names are compared as bytes
export LC_ALL
: "${BACKUP_STORE:?BACKUP_STORE is not set: a directory, or an rclone destination such as s3:bucket/layers}"

# The store does not answer, which is something else than that an object is not there.
# PostgreSQL ends a recovery at a restore_command that says 1, and stops at one above 125.
NO_STORE=200

say() { printf '%s %s: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "${0##*/}" "$*" >&2; }

die() {
	say "$1"
	exit "${2:-1}"
}

in_directory() { case $BACKUP_STORE in /*) ;; *) return 1 ;; esac }

# reach_store fails if the store is not there at all, as a directory that is not mounted.
reach_store() {
	if in_directory; then
		[ -d "$BACKUP_STORE" ] && [ -r "$BACKUP_STORE" ]
	else
		rclone lsf --max-depth 1 "$BACKUP_STORE" >/dev/null
	fi
}

# put FILE NAME
put() {
	if in_directory; then
		mkdir -p "$BACKUP_STORE/$(dirname "$2")" &&
			cp "$1" "$BACKUP_STORE/$2.partial.$$" && sync "$BACKUP_STORE/$2.partial.$$" &&
			mv "$BACKUP_STORE/$2.partial.$$" "$BACKUP_STORE/$2" && sync "$BACKUP_STORE/$(dirname "$2")"
	else
		rclone copyto "$1" "$BACKUP_STORE/$2"
	fi
}

# get NAME FILE: 1 if there is no such object, NO_STORE if the store does not answer.
get() {
	has "$1" || return
	if in_directory; then
		cp "$BACKUP_STORE/$1" "$2" || return "$NO_STORE"
	else
		rclone copyto "$BACKUP_STORE/$1" "$2" || return "$NO_STORE"
	fi
}

# has NAME: 1 if there is no such object, NO_STORE if the store does not answer.
has() {
	if in_directory; then
		[ ! -f "$BACKUP_STORE/$1" ] || return 0
		reach_store || return "$NO_STORE"
		return 1
	fi
	# An object that is not there is an empty list, or no such directory (3).
	found=$(rclone lsf --files-only "$BACKUP_STORE/$1" 2>/dev/null)
	case $? in
	0) [ -n "$found" ] ;;
	3 | 4) return 1 ;;
	*) return "$NO_STORE" ;;
	esac
}

# list DIRECTORY: the names in it, directories with a slash behind, sorted.
list() {
	if in_directory; then
		reach_store || return "$NO_STORE"
		[ -d "$BACKUP_STORE/$1" ] || return 0
		(cd "$BACKUP_STORE/$1" && find . -mindepth 1 -maxdepth 1 ! -name '*.partial.*' \( -type d -printf '%f/\n' -o -printf '%f\n' \)) | sort
	else
		rclone lsf "$BACKUP_STORE/$1" | sort
	fi
}

# drop NAME: a file, or a directory with all that is in it if the name ends in a slash.
drop() {
	case $1 in
	*..* | /* | '') die "will not remove '$1'" ;;
	esac
	if in_directory; then
		rm -rf "${BACKUP_STORE:?}/$1"
	else
		case $1 in
		*/) rclone purge "$BACKUP_STORE/$1" ;;
		*) rclone deletefile "$BACKUP_STORE/$1" ;;
		esac
	fi
}

# scratch makes a directory that goes with the script.
scratch() {
	SCRATCH=$(mktemp -d "${BACKUP_SCRATCH:-${TMPDIR:-/tmp}}/backup.XXXXXX") || die "no scratch directory"
	trap 'rm -rf "$SCRATCH"' EXIT
	trap 'exit 143' INT TERM
}
