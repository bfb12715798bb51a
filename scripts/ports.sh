# Sourced by the scripts that start a cluster of their own.

# free_base prints a base port so that none of those that cluster.sh derives from it is
# taken, for up to nine nodes. They are below the ports that systems give to outgoing connections.
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_base() {
	local base i add
	for ((i = 0; i < 200; i++)); do
		base=$((15000 + RANDOM % 16000))
		for add in {0..9} {101..109} {201..209}; do
			taken $((base + add)) && continue 2
		done
		echo "$base"
		return 0
	done
	return 1
}
