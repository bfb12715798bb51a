#!/usr/bin/env bash
# Restarts the nodes of the cluster that scripts/cluster.sh runs, one after the other, so
# that no client behind the shim sees an error: each node is drained of its leaderships,
# stopped and started again, and the next one follows when its replicas have caught up.
set -u

usage() {
	cat <<'USAGE'
Usage: scripts/rolling-restart.sh [NODE…]

Without numbers all nodes are restarted. TRIMARAN_RUN and TRIMARAN_BIN are as for
scripts/cluster.sh; with another TRIMARAN_BIN the nodes are upgraded.
USAGE
}

die() { printf 'rolling-restart.sh: %s\n' "$*" >&2; exit 1; }

case ${1:-} in -h | --help | help) usage; exit 0 ;; esac

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
RUN=${TRIMARAN_RUN:-$ROOT/.run}
BIN=${TRIMARAN_BIN:-$ROOT/bin}
[ -f "$RUN/env" ] || die "no cluster runs in $RUN; scripts/cluster.sh start begins one"
# shellcheck source=/dev/null
. "$RUN/env" || exit 1
IFS=, read -r -a brokers <<<"$BROKERS"
if [ $# -eq 0 ]; then
	for i in $PIDS; do set -- "$@" "${i%%:*}"; done
fi
[ "${#brokers[@]}" -gt 2 ] || die "with ${#brokers[@]} nodes nothing can be restarted without a pause: three are needed"

drained=
finish() {
	# Whatever went wrong, no node stays drained.
	[ -z "$drained" ] || "$BIN/trimaran" node drain "$drained" --undo --brokers "$SHIM"
}
trap finish EXIT

others_away() { # NODE: which of the others are down
	"$BIN/trimaran" node list --brokers "$SHIM" | awk -v me="$1" 'NR > 1 && $1 != me && $2 ~ /^down/ { printf "%s%s", sep, $1; sep = ", " }'
	[ "${PIPESTATUS[0]}" -eq 0 ]
}

for i in "$@"; do
	case $i in *[!0-9]* | '') usage >&2; exit 2 ;; esac
	case " $PIDS " in *" $i:"*) ;; *) die "node $i does not run" ;; esac
	node=n$i
	away=$(others_away "$node") || die "the nodes cannot be listed"
	[ -z "$away" ] || die "$node is not restarted while $away is down: what only they and one more hold would be without a majority"
	printf '%s:' "$node"
	drained=$node
	"$BIN/trimaran" node drain "$node" --wait --brokers "$SHIM" || die "$node cannot be drained"
	printf ' drained'
	"$ROOT/scripts/cluster.sh" restart "$i" >/dev/null || die "$node does not come back; its log is $RUN/$node.log"
	printf ', restarted'
	"$BIN/trimaran" node drain "$node" --undo --wait --brokers "$SHIM" || die "$node does not catch up"
	drained=
	printf ', caught up\n'
done
