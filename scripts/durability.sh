#!/usr/bin/env bash
# Writes to a cluster while its nodes are killed, paused and restarted, reads
# everything back from every gateway, and fails on any loss. The checker is the
# Go program in scripts/durability, which shares no code with the cluster.
set -u

usage() {
	cat <<'USAGE'
Usage: scripts/durability.sh [--seconds N] [--nodes N] [--keep] [-- CHECKER FLAGS]

  --seconds N   how long to write (default 60)
  --nodes N     nodes of the cluster (default 3)
  --keep        leave data and logs there, and say where

The cluster is its own: a temporary folder and free ports. TRIMARAN_RUN and
TRIMARAN_PORT name others; a cluster that runs there already is used and left running.
'-- --help' shows the checker's flags.
USAGE
}

die() { printf 'durability.sh: %s\n' "$*" >&2; exit 1; }

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
seconds=60 nodes=3 keep=
while [ $# -gt 0 ]; do
	case $1 in
	--seconds) [ $# -ge 2 ] || die "--seconds needs a number"; seconds=$2; shift 2 ;;
	--nodes) [ $# -ge 2 ] || die "--nodes needs a number"; nodes=$2; shift 2 ;;
	--keep) keep=1; shift ;;
	--) shift; break ;;
	-h | --help | help) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
done

temporary=
if [ -z "${TRIMARAN_RUN:-}" ]; then
	TRIMARAN_RUN=$(mktemp -d "${TMPDIR:-/tmp}/trimaran-durability-XXXXXX") || exit 1
	temporary=1
fi
# shellcheck source=scripts/ports.sh
. "$ROOT/scripts/ports.sh" || exit 1
if [ -z "${TRIMARAN_PORT:-}" ] && [ ! -f "$TRIMARAN_RUN/port" ]; then
	TRIMARAN_PORT=$(free_base) || die "no free ports"
	export TRIMARAN_PORT
fi
export TRIMARAN_RUN
cluster=$ROOT/scripts/cluster.sh
started=

finish() {
	local code=$?
	trap - EXIT
	[ -z "$started" ] || "$cluster" stop >/dev/null || code=1
	if [ -n "$temporary" ]; then
		if [ -n "$keep" ] || [ "$code" -ne 0 ]; then
			echo "data and logs are in $TRIMARAN_RUN"
		else
			rm -rf "${TRIMARAN_RUN:?}"
		fi
	fi
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! "$cluster" status >/dev/null 2>&1; then
	started=1
	"$cluster" start --nodes "$nodes" || exit 1
fi
# shellcheck source=/dev/null
. "$TRIMARAN_RUN/env" || exit 1
mkdir -p "$ROOT/bin"
(cd "$ROOT" && go build -o bin/durability ./scripts/durability) || die "the checker does not build"
"$ROOT/bin/durability" --shim "$SHIM" --brokers "$BROKERS" --disturb "$cluster" --seconds "$seconds" "$@"
