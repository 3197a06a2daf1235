# shellcheck shell=sh
# How Elasticsearch is asked. Source it: . ./elasticsearch.sh
: "${ELASTICSEARCH_URL:?ELASTICSEARCH_URL is not set}"
# shellcheck disable=SC2034 # for those who source it
PREFIX=${ELASTICSEARCH_PREFIX:-layers}
# shellcheck disable=SC2034
REPOSITORY=${SNAPSHOT_REPOSITORY:-layers}

say() { printf '%s %s: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "${0##*/}" "$*" >&2; }

die() {
	say "$1"
	exit 1
}

# ask METHOD PATH [BODY]. The key goes by way of standard input: arguments can be
# seen by everybody on the machine.
ask() {
	{
		echo "header = \"Content-Type: application/json\""
		[ -z "${ELASTICSEARCH_API_KEY:-}" ] || echo "header = \"Authorization: ApiKey $ELASTICSEARCH_API_KEY\""
	} | curl --config - --silent --show-error --fail-with-body --request "$1" "$ELASTICSEARCH_URL/$2" ${3:+--data "$3"} ||
		{
			echo >&2
			die "$1 $2 failed"
		}
	echo
}
