#!/usr/bin/env bash
# Writes to a cluster while its nodes are killed, paused and restarted, or come and go, reads
# everything back from every gateway, and fails on any loss. The checker is the
# Go program in test/tools/durability, which shares no code with the cluster.
set -u

usage() {
	cat <<'USAGE'
Usage: scripts/durability.sh [--seconds N] [--nodes N] [--storm] [--come-and-go] [--secured]
                             [--seed N] [--keep] [-- CHECKER FLAGS]

  --seconds N    how long to write (default 60)
  --nodes N      nodes of the cluster, up to nine (default 3; in a storm 5)
  --storm        hit several nodes at once, at random: kill -9 of up to two of five, SIGSTOP of others
  --come-and-go  two nodes join, one is decommissioned while another is killed, one is lost
                 with its disk and replaced; takes a minute or two
  --secured      nodes have certificates, gossip a key; clients log in by SCRAM and have ACLs
  --seed N       repeat a run's dice
  --keep         leave data and logs there, and say where

The cluster is its own: a temporary folder and free ports. TRIMARAN_RUN and
TRIMARAN_PORT name others; a cluster that runs there already is used and left running.
'-- --help' shows the checker's flags.
USAGE
}

die() { printf 'durability.sh: %s\n' "$*" >&2; exit 1; }

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
seconds=60 nodes='' how=turns seed='' keep='' secured=''
while [ $# -gt 0 ]; do
	case $1 in
	--seconds) [ $# -ge 2 ] || die "--seconds needs a number"; seconds=$2; shift 2 ;;
	--nodes) [ $# -ge 2 ] || die "--nodes needs a number"; nodes=$2; shift 2 ;;
	--storm) how=storm; shift ;;
	--secured) secured=1; shift ;;
	--come-and-go) how=come-and-go; shift ;;
	--seed) [ $# -ge 2 ] || die "--seed needs a number"; seed=$2; shift 2 ;;
	--keep) keep=1; shift ;;
	--) shift; break ;;
	-h | --help | help) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
done
if [ -z "$nodes" ]; then
	nodes=3
	[ "$how" != storm ] || nodes=5
fi

for number in "$seconds" "$nodes" "${seed:-0}"; do
	case $number in '' | *[!0-9]*) die "'$number' is not a number" ;; esac
done
if [ "$nodes" -lt 1 ] || [ "$nodes" -gt 9 ]; then die "--nodes $nodes: want 1 to 9"; fi

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

secrets=$TRIMARAN_RUN/secrets user=
trimaran=${TRIMARAN_BIN:-$ROOT/bin}/trimaran
secure() { # before the cluster starts
	[ -n "${TRIMARAN_BIN:-}" ] || make -s -C "$ROOT" build || return 1
	mkdir -p "$secrets" || return 1
	local i ids=
	for ((i = 1; i <= nodes; i++)); do ids="$ids n$i"; done
	# shellcheck disable=SC2086
	"$trimaran" cert ca --dir "$secrets" && "$trimaran" cert node $ids --dir "$secrets" || return 1
	head -c 32 /dev/urandom | base64 >"$secrets/gossip.key"
}
people() { # when it runs: who writes, and may do that and no more
	export TRIMARAN_PASSWORD='pä§§=,wörd'
	user=writer
	local at=(--brokers "unix:$TRIMARAN_RUN/n1")
	printf '%s\n' "$TRIMARAN_PASSWORD" | "$trimaran" user create $user --password-stdin "${at[@]}" &&
		"$trimaran" acl add --principal User:$user --topic-prefix durability- \
			--operation create --operation read --operation write "${at[@]}" &&
		"$trimaran" acl add --principal User:$user --cluster --operation alter "${at[@]}" # to compare replicas
}
if ! "$cluster" status >/dev/null 2>&1; then
	started=1
	[ -z "$secured" ] || secure || die "no certificates"
	"$cluster" start --nodes "$nodes" || exit 1
	[ -z "$secured" ] || people || die "no users"
elif [ -n "$secured" ]; then
	die "a cluster runs in $TRIMARAN_RUN already, and is as it is"
elif [ "$how" = come-and-go ]; then
	die "a cluster runs in $TRIMARAN_RUN already, and its nodes are not taken out"
fi
# shellcheck source=/dev/null
. "$TRIMARAN_RUN/env" || exit 1
mkdir -p "$ROOT/bin"
(cd "$ROOT/test" && go build -o "$ROOT/bin/durability" ./tools/durability) || die "the checker does not build"
numbers=
for i in $PIDS; do numbers=$numbers${numbers:+,}${i%%:*}; done
"$ROOT/bin/durability" --shim "$SHIM" --brokers "$BROKERS" --numbers "$numbers" --disturb "$cluster" --how "$how" \
	--trimaran "$trimaran" --seconds "$seconds" ${user:+--user "$user"} ${seed:+--seed "$seed"} "$@"
