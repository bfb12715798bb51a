#!/usr/bin/env bash
# The demo: three nodes and a shim, a real text written line by line, the leader
# killed half-way, everything read back and compared. Leaves nothing behind.
set -u

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
cluster=$ROOT/scripts/cluster.sh

# shellcheck source=scripts/ports.sh
. "$ROOT/scripts/ports.sh" || exit 1

if [ -z "${TRIMARAN_BIN:-}" ]; then
	make -s -C "$ROOT" build || exit 1
fi
mkdir -p "$ROOT/bin"
(cd "$ROOT" && go build -o bin/opticks ./scripts/opticks) || exit 1

if [ -z "${TRIMARAN_RUN:-}" ]; then
	TRIMARAN_RUN=$(mktemp -d "${TMPDIR:-/tmp}/trimaran-demo-XXXXXX") || exit 1
fi
if [ -z "${TRIMARAN_PORT:-}" ]; then
	TRIMARAN_PORT=$(free_base) || { echo "demo.sh: no free ports" >&2; exit 1; }
fi
export TRIMARAN_RUN TRIMARAN_PORT
trimaran=${TRIMARAN_BIN:-$ROOT/bin}/trimaran

finish() {
	local code=$?
	trap - EXIT
	if [ "$code" -eq 0 ]; then
		"$cluster" clean >/dev/null || code=1
	else
		"$cluster" stop >/dev/null
	fi
	if [ "$code" -eq 0 ]; then
		echo "Everything is stopped and deleted."
	else
		echo "The demo failed; data and logs are in $TRIMARAN_RUN" >&2
	fi
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "Starting three nodes and a shim …"
"$cluster" start --nodes 3 || exit 1
# shellcheck source=/dev/null
. "$TRIMARAN_RUN/env" || exit 1
echo
"$ROOT/bin/opticks" --shim "$SHIM" --brokers "$BROKERS" --trimaran "$trimaran" --cluster "$cluster" \
	--text "$ROOT/scripts/opticks/testdata/Isaac.Newton-Opticks.txt"
