#!/usr/bin/env bash
# Runs a Trimaran cluster on loopback: node processes and one shim, each with its
# own data and log. 'cluster.sh help' says how. Needs bash (3.2 or newer) and, to
# build, Go and make.
set -u

usage() {
	cat <<'USAGE'
Usage: scripts/cluster.sh COMMAND

  start [--nodes N]   build if needed, start N nodes (default 3, or as many as
                      there were) and a shim; returns when the cluster serves
  stop                stop all of it, keep the data
  status              what runs, and what the cluster says of itself
  kill N              kill -9 node N
  restart N           start node N again, stopping it first if it runs;
                      returns when it serves
  pause N, resume N   SIGSTOP and SIGCONT to node N
  add                 start one more node, which joins; returns when it serves
  forget N            node N is gone for good: killed, its data deleted. To take it
                      out of the cluster, 'trimaran node decommission' it before, or
                      'trimaran node replace' it after
  clean               stop, and delete data and logs

Environment:
  TRIMARAN_RUN    folder for data, logs and the file 'env' (default: .run in the
                  repository). 'env' has SHIM, BROKERS, GATEWAYS and PIDS.
  TRIMARAN_PORT   B, the first port (default 9092): the shim listens on B, node i
                  on B+i, for other nodes on B+100+i, for gossip on B+200+i
  TRIMARAN_BIN    folder with finished binaries, to build nothing

With a folder 'secrets' in TRIMARAN_RUN, with ca.crt, gossip.key and certificates of all nodes (as
'trimaran cert' makes them), nodes and clients have to show who they are.
USAGE
}

say() { printf '%s\n' "$*"; }
die() { printf 'cluster.sh: %s\n' "$*" >&2; exit 1; }

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
RUN=${TRIMARAN_RUN:-$ROOT/.run}
case $RUN in /*) ;; *) RUN=$PWD/$RUN ;; esac
RUN=${RUN%/}
BIN=${TRIMARAN_BIN:-$ROOT/bin}
case $BIN in /*) ;; *) BIN=$PWD/$BIN ;; esac
PORT=${TRIMARAN_PORT:-9092}
case $PORT in '' | *[!0-9]*) die "TRIMARAN_PORT is '$PORT', not a number" ;; esac
if [ "$PORT" -lt 1 ] || [ "$PORT" -gt 65236 ]; then die "TRIMARAN_PORT is $PORT: want 1 to 65236, since ports up to 299 above are used"; fi
HOST=127.0.0.1
# What runs here goes on to use the port that it was started with.
given_port=$PORT
[ ! -f "$RUN/port" ] || read -r PORT <"$RUN/port"

# --- processes ----------------------------------------------------------------
# A process is ours if its recorded id belongs to a program that was started with
# the very arguments that we give. Anything else that has the id by now is left
# alone. NAME is n1, n2, … or shim; NAME.pid holds the id.

node_port() { echo $((PORT + $1)); }

# mark NAME gives what is on the command line of that process and of no other.
mark() {
	if [ "$1" = shim ]; then
		echo "/trimaran-shim --listen $HOST:$PORT "
	else
		echo "/trimaran serve --data $RUN/$1 "
	fi
}

process_state() { # PID: R, S, T …, Z for a zombie; nothing if it is gone
	ps -p "$1" -o state= 2>/dev/null || { sed 's/.*) //' <"/proc/$1/stat"; } 2>/dev/null
}

lives() { # PID
	case $(process_state "$1") in '' | Z* | X*) return 1 ;; esac
}

# A process that is just starting a program, as a node does with itself, has no command line for
# a moment. It is looked at again, up to 100 times.
command_of() { # PID: its command line; nothing if it is gone or a zombie
	local line='' left=100
	if [ -d /proc/self ]; then
		while [ "$left" -gt 0 ]; do
			line=$({ tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null)
			if [ -n "$line" ] || ! lives "$1"; then break; fi
			left=$((left - 1))
			sleep 0.01
		done
		printf '%s' "$line"
	else
		ps -p "$1" -o command= 2>/dev/null
	fi
}

pid_of() { # NAME: the process id if it runs; false if not
	local pid
	[ -f "$RUN/$1.pid" ] || return 1
	read -r pid <"$RUN/$1.pid" || return 1
	case $pid in '' | *[!0-9]*) return 1 ;; esac
	case "$(command_of "$pid") " in
	*"$(mark "$1")"*) echo "$pid" ;;
	*) return 1 ;;
	esac
}

signal() { # SIGNAL NAME
	local pid
	pid=$(pid_of "$2") && kill "-$1" "$pid" 2>/dev/null
}

wait_gone() { # NAME TENTHS
	local left=$2
	while pid_of "$1" >/dev/null; do
		[ "$left" -gt 0 ] || return 1
		left=$((left - 1))
		sleep 0.1
	done
	rm -f "$RUN/$1.pid"
}

names() { # every node that was ever started here, and the shim
	local file
	for file in "$RUN"/n*.log "$RUN"/shim.log; do
		[ -f "$file" ] || continue
		file=${file##*/}
		echo "${file%.log}"
	done
}

any_running() {
	local name
	for name in $(names); do
		pid_of "$name" >/dev/null && return 0
	done
	return 1
}

nodes_known() {
	local i=0
	while [ -f "$RUN/n$((i + 1)).log" ]; do i=$((i + 1)); done
	echo "$i"
}

present() { # NODES: the numbers up to that, without the forgotten ones
	local i
	for ((i = 1; i <= $1; i++)); do
		[ -f "$RUN/n$i.forgotten" ] || echo "$i"
	done
}

launch() { # NAME PROGRAM ARGUMENTS…
	local name=$1
	shift
	printf -- '--- %s\n' "$*" >>"$RUN/$name.log"
	nohup "$@" </dev/null >>"$RUN/$name.log" 2>&1 &
	echo $! >"$RUN/$name.pid"
	# Until nohup runs under that id it is this script's, and would not be known as ours.
	until pid_of "$name" >/dev/null || ! lives $!; do sleep 0.01; done
	disown $! 2>/dev/null || true
}

start_node() { # NUMBER NODES
	local i=$1 n=$2 j join=
	for j in $(present "$n"); do
		[ "$j" -eq "$i" ] || join=$join${join:+,}$HOST:$((PORT + 200 + j))
	done
	# nohup becomes the node under the same process id, so 'mark' fits at once.
	launch "n$i" "$BIN/trimaran" serve --data "$RUN/n$i" --node-id "n$i" \
		--listen "$HOST:$(node_port "$i")" \
		--peer-listen "$HOST:$((PORT + 100 + i))" --gossip-listen "$HOST:$((PORT + 200 + i))" \
		--bootstrap-expect "$n" ${join:+--join "$join"} $(secured "n$i")
}

secured() { # NODE: its flags if there are secrets, of which the path has no spaces
	local s=$RUN/secrets
	[ -d "$s" ] || return 0
	echo "--peer-tls-cert $s/$1.crt --peer-tls-key $s/$1.key --peer-tls-ca $s/ca.crt --gossip-key-file $s/gossip.key" \
		"--sasl-mechanisms SCRAM-SHA-512,SCRAM-SHA-256 --authorize"
}

start_shim() { # NODES
	launch shim "$BIN/trimaran-shim" --listen "$HOST:$PORT" --gateways "$(addresses "$1" ws://)"
}

addresses() { # NODES PREFIX: of all client ports, with commas
	local i out=
	for i in $(present "$1"); do
		out=$out${out:+,}$2$HOST:$(node_port "$i")
	done
	echo "$out"
}

write_env() { # NODES: written beside and moved, so that a reader sees all or nothing; two may do it at once
	local i pid pids=
	for ((i = 1; i <= $1; i++)); do
		pid=$(pid_of "n$i") && pids=$pids${pids:+ }$i:$pid
	done
	{
		echo "SHIM=$HOST:$PORT"
		echo "BROKERS=$(addresses "$1" '')"
		echo "GATEWAYS=$(addresses "$1" ws://)"
		echo "PIDS=\"$pids\""
	} >"$RUN/env.$$" && mv "$RUN/env.$$" "$RUN/env"
}

# --- waiting ------------------------------------------------------------------

ready() { # NUMBER: does the node's /readyz answer 200?
	local line=
	(
		exec 3<>"/dev/tcp/$HOST/$(node_port "$1")" || exit 1
		printf 'GET /readyz HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n' "$HOST" "$(node_port "$1")" >&3
		read -r -t 2 line <&3
		case $line in *' 200 '*) exit 0 ;; esac
		exit 1
	) 2>/dev/null
}

tail_log() { # NAME
	printf '%s\n' "--- the end of $RUN/$1.log:" >&2
	tail -n 15 "$RUN/$1.log" >&2
}

wait_ready() { # NUMBER SECONDS [NUMBER...]: the others must go on meanwhile, it may need them
	local end=$((SECONDS + $2)) i
	until ready "$1"; do
		for i in "$1" "${@:3}"; do
			if ! pid_of "n$i" >/dev/null; then
				tail_log "n$i"
				say "cluster.sh: node $i has ended" >&2
				case $(tail -n 1 "$RUN/n$i.log") in
				*'has left the cluster'*) say "cluster.sh: it was taken out of the cluster; 'forget $i' leaves it out here" >&2 ;;
				esac
				return 1
			fi
		done
		if [ "$SECONDS" -ge "$end" ]; then
			tail_log "n$1"
			say "cluster.sh: node $1 does not serve after $2 s" >&2
			return 1
		fi
		sleep 0.1
	done
}

wait_shim() { # SECONDS: until a request gets an answer through it
	local end=$((SECONDS + $1))
	[ ! -d "$RUN/secrets" ] || return 0 # it asks for a user, whom nobody has made yet
	until "$BIN/trimaran" cluster status --brokers "$HOST:$PORT" --timeout 2s >/dev/null 2>&1; do
		if ! pid_of shim >/dev/null || [ "$SECONDS" -ge "$end" ]; then
			tail_log shim
			say "cluster.sh: the shim does not answer" >&2
			return 1
		fi
		sleep 0.1
	done
}

# --- commands -----------------------------------------------------------------

build() {
	[ -z "${TRIMARAN_BIN:-}" ] || return 0
	if [ -x "$BIN/trimaran" ] && [ -x "$BIN/trimaran-shim" ] &&
		[ -z "$(cd "$ROOT" && find go.mod cmd cluster fsm gateway kafkaproto -newer bin/trimaran \( -name '*.go' -o -name go.mod \) -print 2>/dev/null | head -n 1)" ]; then
		return 0
	fi
	make -s -C "$ROOT" build || die "the build failed"
}

cmd_start() {
	local n='' i
	while [ $# -gt 0 ]; do
		case $1 in
		--nodes) [ $# -ge 2 ] || die "--nodes needs a number"; n=$2; shift 2 ;;
		--nodes=*) n=${1#*=}; shift ;;
		*) die "start: unknown argument '$1'" ;;
		esac
	done
	if any_running; then
		die "a cluster runs in $RUN already; 'stop' it first, or set TRIMARAN_RUN and TRIMARAN_PORT for another one"
	fi
	i=$(nodes_known)
	if [ -z "$n" ]; then
		n=3
		[ "$i" -eq 0 ] || n=$i
	fi
	case $n in '' | *[!0-9]*) die "--nodes '$n': not a number" ;; esac
	if [ "$n" -lt 1 ] || [ "$n" -gt 99 ]; then die "--nodes $n: want 1 to 99"; fi
	[ "$n" -ge "$i" ] || die "$RUN holds the data of $i nodes: start them all, or 'clean' first"
	build
	PORT=$given_port
	if ! mkdir -p "$RUN" || ! echo "$PORT" >"$RUN/port"; then die "cannot write to $RUN"; fi
	rm -f "$RUN"/*.pid "$RUN/env"
	trap 'say "interrupted" >&2; cmd_stop; exit 130' INT TERM
	for i in $(present "$n"); do start_node "$i" "$n"; done
	start_shim "$n"
	for i in $(present "$n"); do
		# shellcheck disable=SC2046
		wait_ready "$i" 60 $(present "$n") || { cmd_stop >&2; exit 1; }
	done
	wait_shim 20 || { cmd_stop >&2; exit 1; }
	trap - INT TERM
	write_env "$n"
	say "$(present "$n" | wc -l | tr -d ' ') node(s) and a shim run; data and logs in $RUN"
	say "  Kafka clients, through the shim   $HOST:$PORT"
	say "  each node                         $(addresses "$n" '')"
	say "  WebSocket                         $(addresses "$n" ws://)"
}

cmd_stop() {
	local name failed=0
	if ! any_running; then
		[ -d "$RUN" ] && rm -f "$RUN"/*.pid "$RUN/env"
		say "nothing runs in $RUN"
		return 0
	fi
	for name in $(names); do
		signal TERM "$name"
		signal CONT "$name"
	done
	for name in $(names); do
		if ! wait_gone "$name" 300; then
			say "$name does not stop; killing it" >&2
			signal KILL "$name"
			wait_gone "$name" 50 || failed=1
		fi
	done
	rm -f "$RUN/env"
	[ "$failed" -eq 0 ] || die "something is still running; see $RUN"
	say "stopped"
}

state_of() { # NAME
	local pid
	pid=$(pid_of "$1") || { echo down; return; }
	case $(process_state "$pid") in
	*T*) echo "paused, pid $pid" ;;
	*) echo "runs, pid $pid" ;;
	esac
}

cmd_status() {
	local name
	any_running || { say "nothing runs in $RUN"; return 1; }
	for name in $(names); do
		[ -f "$RUN/$name.forgotten" ] || say "$name: $(state_of "$name")"
	done
	say
	"$BIN/trimaran" cluster status --brokers "$HOST:$PORT,$(addresses "$(nodes_known)" '')" --timeout 10s
}

need_node() { # NUMBER
	case ${1:-} in '' | *[!0-9]*) die "which node? give its number, from 1" ;; esac
	if [ "$1" -lt 1 ] || [ "$1" -gt "$(nodes_known)" ] || [ -f "$RUN/n$1.forgotten" ]; then die "there is no node $1 in $RUN"; fi
}

need_running() { # NUMBER
	need_node "${1:-}"
	pid_of "n$1" >/dev/null || die "node $1 does not run"
}

cmd_kill() {
	need_running "${1:-}"
	signal KILL "n$1"
	wait_gone "n$1" 100 || die "node $1 does not die"
	write_env "$(nodes_known)"
	say "node $1 killed"
}

cmd_restart() {
	need_node "${1:-}"
	if pid_of "n$1" >/dev/null; then
		signal TERM "n$1"
		signal CONT "n$1"
		wait_gone "n$1" 300 || die "node $1 does not stop"
	fi
	start_node "$1" "$(nodes_known)"
	write_env "$(nodes_known)"
	wait_ready "$1" 60 || exit 1
	say "node $1 serves again"
}

cmd_pause() {
	need_running "${1:-}"
	signal STOP "n$1" || die "cannot pause node $1"
	say "node $1 paused"
}

cmd_resume() {
	need_running "${1:-}"
	signal CONT "n$1" || die "cannot resume node $1"
	say "node $1 goes on"
}

cmd_add() {
	local i
	any_running || die "nothing runs in $RUN; 'start' it first"
	i=$(($(nodes_known) + 1))
	[ "$i" -le 99 ] || die "99 nodes are the most"
	start_node "$i" "$i"
	write_env "$i"
	wait_ready "$i" 60 || exit 1
	say "node $i serves on $HOST:$(node_port "$i")"
}

cmd_forget() {
	need_node "${1:-}"
	signal KILL "n$1"
	wait_gone "n$1" 100 || die "node $1 does not die"
	if ! rm -rf "${RUN:?}/n$1" || ! : >"$RUN/n$1.forgotten"; then die "cannot delete the data of node $1"; fi
	write_env "$(nodes_known)"
	say "node $1 is gone for good"
}

cmd_clean() {
	any_running && cmd_stop
	[ -d "$RUN" ] || return 0
	# Only what this script makes: RUN could be any folder.
	local name
	for name in $(names); do
		rm -rf "${RUN:?}/$name" "$RUN/$name.log" "$RUN/$name.pid" "$RUN/$name.forgotten"
	done
	rm -f "$RUN"/env "$RUN"/env.* "$RUN/port"
	rmdir "$RUN" 2>/dev/null || say "$RUN holds other things, which are left"
	return 0
}

command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
kill | restart | pause | resume | forget) [ $# -lt 2 ] || die "$command: one node at a time" ;;
stop | status | add | clean) [ $# -eq 0 ] || die "$command takes no arguments" ;;
esac
case $command in
start | stop | status | kill | restart | pause | resume | add | forget | clean) "cmd_$command" "$@" ;;
help | -h | --help) usage ;;
*) usage >&2; exit 2 ;;
esac
