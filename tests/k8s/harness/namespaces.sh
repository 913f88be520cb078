# The namespaces that everything runs in, and their end.
# shellcheck shell=bash disable=SC2154

# One for each place of state, so that several clusters do not meet.
cgroup="ordinal-k8s-$(cksum <<<"$state" | cut -d ' ' -f 1)"

# The first process of the namespaces, as this host numbers it, if it is still ours.
namespaces_live() {
  [[ -s "$state/init.pid" ]] && tr '\0' ' ' <"/proc/$(<"$state/init.pid")/cmdline" 2>/dev/null |
    grep -qF "$harness/init $state"
}

# Runs a command in them.
inside() { nsenter --target "$(<"$state/init.pid")" --net --mount --pid -- "$@"; }

kubectl_inside() { inside kubectl "$@"; }

enter_namespaces() {
  local controller outside
  for controller in $(cgroup_roots); do
    mkdir -p "$controller/$cgroup"
    # A new cpuset is empty, and its children cannot have more than it has.
    if [[ -e "$controller/$cgroup/cpuset.mems" && -e "$controller/cpuset.mems" ]]; then
      cat "$controller/cpuset.cpus" >"$controller/$cgroup/cpuset.cpus"
      cat "$controller/cpuset.mems" >"$controller/$cgroup/cpuset.mems"
    fi
  done
  share_processor
  setsid unshare --net --mount --pid --fork --mount-proc --propagation private \
    bash "$harness/init" "$state" "$node_ip/$prefix" "$gateway" >"$state/logs/init.log" 2>&1 </dev/null &
  outside=$!
  until [[ -e "$state/run/ready" ]]; do
    kill -0 "$outside" 2>/dev/null || fail "no namespaces: $(tail -n 1 "$state/logs/init.log")"
    sleep 0.02
  done
  tr -d ' ' <"/proc/$outside/task/$outside/children" >"$state/init.pid"
}

# As if clients, members and the control plane were on machines of their own: the clients come first, the
# pods (by the kubelet) have the share of all cores, and the programs that run them take the rest. With shares
# alone the pods together, and the clients, got nothing for up to half a second while many pods started
# (perf sched, Linux 6.18).
share_processor() {
  local cpu=/sys/fs/cgroup/cpu file=cpu.shares each=1024 cores
  # A larger value is not valid.
  cores="$(($(nproc) < 48 ? $(nproc) : 48))"
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    cpu=/sys/fs/cgroup file=cpu.weight each=40
    # In a container this may be another's to decide.
    if ! echo +cpu >"$cpu/cgroup.subtree_control" || ! echo +cpu >"$cpu/$cgroup/cgroup.subtree_control"; then
      echo "k8s: the processor is not shared as on a node: gaps may be longer"
      return
    fi
  elif [[ ! -e "$cpu/$cgroup/$file" ]]; then
    return
  fi
  cpu="$cpu/$cgroup"
  mkdir -p "$cpu/system" "$cpu/clients"
  echo $((each * (5 * cores + 1))) >"$cpu/$file"
  echo $((each * 4 * cores)) >"$cpu/clients/$file"
  echo "$each" >"$cpu/system/$file"
  [[ ! -e "$cpu/system/cpu.idle" ]] || echo 1 >"$cpu/system/cpu.idle"
  echo "$cpu" >"$state/cgroup"
}

# Every process in a PID namespace ends with its first one, and mounts and interfaces with the last.
leave_namespaces() {
  local init deadline=$((SECONDS + 30)) controller client
  if namespaces_live; then
    thaw
    init="$(<"$state/init.pid")"
    kill -KILL "$init"
    while [[ -e "/proc/$init" ]]; do
      ((SECONDS < deadline)) || fail "the processes in the namespaces of $init do not end"
      sleep 0.05
    done
  fi
  for controller in $(cgroup_roots); do
    [[ -d "$controller/$cgroup" ]] || continue
    # Clients live outside of the namespaces, and go on.
    while read -r client; do
      echo "$client" >"$controller/cgroup.procs" || true
    done < <(cat "$controller/$cgroup/clients/cgroup.procs" 2>/dev/null)
    until find "$controller/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; do
      ((SECONDS < deadline)) || fail "$controller/$cgroup cannot be removed"
      sleep 0.05
    done
  done
}

# Where cgroups can be made: one place with version 2, one for each controller with version 1.
cgroup_roots() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo /sys/fs/cgroup
  else
    findmnt --noheadings --list --types cgroup,cgroup2 --output TARGET
  fi
}
