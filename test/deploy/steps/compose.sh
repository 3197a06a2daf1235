# Every compose file is read, with each of its profiles.
set -euo pipefail
. "$(dirname "$0")/../tools.sh"
get_compose
export LAYERS_PUBLIC_URL=https://layers.example
cd "$root/docker"
for file in docker-compose*.yml; do
	"$compose" -f "$file" config -q
	for profile in $("$compose" -f "$file" config --profiles); do
		"$compose" -f "$file" --profile "$profile" config -q
	done
done
