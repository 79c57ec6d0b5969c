#!/usr/bin/env bash
# Three coordinators on this machine, to try a cluster with. docs/howto/cluster.md goes through it.
#
#   scripts/cluster.sh start [NAME…]   starts those of a, b and c that are not running; the first time makes a token for people,
#                                      and the context local, which commands go to from then on
#   scripts/cluster.sh kill NAME…      kills coordinators or replicas with SIGKILL
#   scripts/cluster.sh replicas N      starts as many of the replicas r0 to r<N-1> as are not running
#   scripts/cluster.sh status          says what runs, and what the coordinators say of each other
#   scripts/cluster.sh stop            ends all in good order; the data stays
#
# Everything is in runs/cluster, or in the folder that KELVIN_CLUSTER names: data, logs, tokens, process ids. Ports are 8443 to
# 8445, 7000 to 7002, 4222 to 4224 and 6222 to 6224 of 127.0.0.1. The programs are those in bin/ (make build), or in the folder
# that KELVIN_BIN names. Whoever can log in to this machine can reach the coordinators, and needs a token to do anything.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${KELVIN_CLUSTER:-runs/cluster}
bin=${KELVIN_BIN:-bin}
all=(a b c)
urls=http://127.0.0.1:8443,http://127.0.0.1:8444,http://127.0.0.1:8445

fail() {
	echo "cluster: $*" >&2
	exit 1
}

# running looks at the program too: after a restart of the machine the number may be another process's.
running() { [[ -f $dir/$1.pid && $(ps -p "$(<"$dir/$1.pid")" -o comm= 2>/dev/null) =~ (coordinator|replica)$ ]]; }

# launch NAME COMMAND… starts a process that outlives the terminal.
launch() {
	local name=$1
	shift
	nohup "$@" >>"$dir/$name.log" 2>&1 </dev/null &
	echo $! >"$dir/$name.pid"
	echo "$name: process $!, log $dir/$name.log"
}

coordinator() {
	local i
	case $1 in a) i=0 ;; b) i=1 ;; c) i=2 ;; *) fail "coordinator $1, want a, b or c" ;; esac
	running "$1" && return
	launch "$1" "$bin/coordinator" serve --name "$1" --data-dir "$dir/$1" --admin-token-file "$dir/first-token" \
		--listen 127.0.0.1:$((8443 + i)) --peer-listen 127.0.0.1:$((7000 + i)) --nats-listen 127.0.0.1:$((4222 + i)) \
		--bootstrap-expect 3 --peers 127.0.0.1:7000,127.0.0.1:7001,127.0.0.1:7002 --nats-cluster-listen 127.0.0.1:$((6222 + i)) \
		--nats-routes 127.0.0.1:6222,127.0.0.1:6223,127.0.0.1:6224 --nats-cluster-secret-file "$dir/routes-secret" --log text
}

# people makes the token of people, and a context with it.
people() {
	[[ -s $dir/token ]] && return
	"$bin/coordinator" token bootstrap --server "$urls" --patience 30s --out "$dir/token"
	"$bin/coordinator" ctx set local --server "$urls" --token-file "$dir/token"
	"$bin/coordinator" ctx use local
}

# joining makes the token of replicas, which is good for a day.
joining() {
	[[ -z $(find "$dir/join-token" -mmin -1380 2>/dev/null) ]] || return 0
	rm -f "$dir/join-token"
	"$bin/coordinator" token create "replicas-$(date +%s)" --scope join --server "$urls" --token-file "$dir/token" --out "$dir/join-token"
}

start() {
	[[ -x $bin/coordinator && -x $bin/replica ]] || fail "no programs in $bin: make build"
	mkdir -p "$dir"
	[[ -s $dir/routes-secret ]] || (umask 077 && head -c 32 /dev/urandom | base64 >"$dir/routes-secret")
	for name in "$@"; do coordinator "$name"; done
	[[ $# -lt 2 ]] || people
}

replicas() {
	[[ -s $dir/token ]] || fail "no token in $dir: $0 start"
	joining
	for ((i = 0; i < $1; i++)); do
		running "r$i" || launch "r$i" "$bin/replica" --coordinator "$urls" --token-file "$dir/join-token" --id "r$i"
	done
}

names() { find "$dir" -maxdepth 1 -name '*.pid' -exec basename {} .pid \; 2>/dev/null | sort; }

killed() {
	for name in "$@"; do
		running "$name" || fail "$name: not running, want one of: $(names | tr '\n' ' ')"
		kill -KILL "$(<"$dir/$name.pid")"
		rm "$dir/$name.pid"
	done
}

status() {
	for name in $(names); do
		if running "$name"; then echo "$name: process $(<"$dir/$name.pid")"; else echo "$name: ended, see $dir/$name.log"; fi
	done
	if running a || running b || running c; then "$bin/coordinator" get members --server "$urls" --token-file "$dir/token"; fi
}

# stop lets replicas go first: they put their shards down with the coordinators.
stop() {
	local group name
	for group in '^r' '^[abc]$'; do
		for name in $(names | grep "$group"); do
			! running "$name" || kill -TERM "$(<"$dir/$name.pid")"
		done
		for name in $(names | grep "$group"); do
			for ((i = 0; i < 400; i++)); do
				running "$name" || break
				sleep 0.1
			done
			! running "$name" || kill -KILL "$(<"$dir/$name.pid")"
			rm "$dir/$name.pid"
		done
	done
}

case ${1:-} in
start)
	shift
	if [[ $# -gt 0 ]]; then start "$@"; else start "${all[@]}"; fi
	;;
kill) shift && killed "$@" ;;
replicas) replicas "${2:?how many}" ;;
status) status ;;
stop) stop ;;
*)
	sed -n '2,/^set/{/^#/p}' "$0" | cut -c3-
	exit 2
	;;
esac
