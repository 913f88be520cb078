#!/bin/bash
# start-cluster.sh DIR BASEPORT: starts (or, on a DIR that has data, restarts) a cluster of real
# processes on loopback in the background, for load generators.
# Prints two lines for the shell: PIDS=p,p,p and ENDPOINTS=host:port,... in the same order.
# Env: NODES (3), KVD (the binary), KVD_FLAGS. Member i: clients BASEPORT+2i, peers BASEPORT+2i+1,
# admin BASEPORT+100+i. The caller kills the PIDS.
set -euo pipefail
dir=$1 base=$2 nodes=${NODES:-3}
kvd=${KVD:-target/dist/kvd}
mkdir -p "$dir"
peers=() pids=() eps=()
for ((i = 0; i < nodes; i++)); do peers+=("127.0.0.1:$((base + 2 * i + 1))"); done
list=$(IFS=,; echo "${peers[*]}")
for ((i = 0; i < nodes; i++)); do
    client=127.0.0.1:$((base + 2 * i))
    # The old names of the flags, so that the script starts older builds too.
    # shellcheck disable=SC2086
    "$kvd" serve --ordinal "$i" --peers "$list" --data-dir "$dir/kv-$i" \
        --listen-client "$client" --listen-peer "${peers[$i]}" \
        --listen-admin "127.0.0.1:$((base + 100 + i))" ${KVD_FLAGS:-} \
        >>"$dir/kv-$i.log" 2>&1 </dev/null &
    pids+=($!) eps+=("$client")
done
echo "PIDS=$(IFS=,; echo "${pids[*]}")"
echo "ENDPOINTS=$(IFS=,; echo "${eps[*]}")"
