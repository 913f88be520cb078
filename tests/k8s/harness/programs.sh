# The programs of the control plane and of the node: how each is started, and how it is ended.
# shellcheck shell=bash disable=SC2154

cni_bin=/usr/lib/cni
containerd_socket=/run/containerd/containerd.sock

# start NAME: its log is logs/NAME.log, its number inside the namespaces run/NAME.pid.
start() {
  local name="$1"
  if [[ -s "$state/run/$name.pid" ]] && inside kill -0 "$(<"$state/run/$name.pid")" 2>/dev/null; then
    return
  fi
  "run_$name"
}

# Suddenly, as a machine fails.
stop() {
  local pid
  pid="$(<"$state/run/$1.pid")"
  inside kill -KILL "$pid" 2>/dev/null || true
  while inside kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
}

# spawn NAME COMMAND…: the shell that starts it ends, and harness/init inherits it.
spawn() {
  # shellcheck disable=SC2016
  inside bash -c '[[ ! -s "$1/cgroup" ]] || echo 0 >"$(<"$1/cgroup")/system/cgroup.procs" || exit
    setsid "${@:3}" >>"$1/logs/$2.log" 2>&1 </dev/null & echo $! >"$1/run/$2.pid"' - "$state" "$@"
}

run_etcd() {
  # The data of Kubernetes is thrown away with the cluster: no need to sync it.
  spawn etcd etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380
}

run_apiserver() {
  local pki="$state/pki"
  spawn apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --bind-address="$any" --advertise-address="$node_ip" --secure-port=6443 \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" --token-auth-file="$pki/tokens.csv" --authorization-mode=Node,RBAC \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$pki/service-account.key" \
    --service-account-signing-key-file="$pki/service-account.key" \
    --service-cluster-ip-range="$services" --allow-privileged=true \
    --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$pki/apiserver-to-kubelet.crt" \
    --kubelet-client-key="$pki/apiserver-to-kubelet.key" \
    --cert-dir="$state/run/apiserver" --profiling=false
}

await_apiserver() {
  local deadline=$((SECONDS + 120))
  until inside curl -skf "$server/readyz" >/dev/null; do
    ((SECONDS < deadline)) || fail "the API server is not ready after 120 s"
    inside kill -0 "$(<"$state/run/apiserver.pid")" || fail "the API server has ended"
    sleep 0.1
  done
}

run_controller-manager() {
  spawn controller-manager kube-controller-manager --kubeconfig="$state/controller-manager.kubeconfig" \
    --leader-elect=false --use-service-account-credentials=true --controllers='*,-node-ipam-controller' \
    --service-account-private-key-file="$state/pki/service-account.key" \
    --root-ca-file="$state/pki/ca.crt" --cert-dir="$state/run/controller-manager" --profiling=false
}

run_scheduler() {
  local config="$state/scheduler.kubeconfig"
  spawn scheduler kube-scheduler --kubeconfig="$config" --authentication-kubeconfig="$config" \
    --authorization-kubeconfig="$config" --leader-elect=false --cert-dir="$state/run/scheduler" \
    --profiling=false
}

run_containerd() {
  mkdir -p "$state/containerd" "$state/cni/net.d"
  cat >"$state/containerd/config.toml" <<TOML
version = 2
root = "$state/containerd/root"
state = "/run/containerd"
# Where the kernel forbids to lower the score, runc would fail.
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "$cni_bin"
  conf_dir = "$state/cni/net.d"
TOML
  # Pods have no traffic with the outside, and no host ports: rules for each would be a burst of iptables.
  cat >"$state/cni/net.d/10-bridge.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "ordinal", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pods"}]],
            "routes": [{"dst": "$default"}], "dataDir": "$state/cni/addresses"}}]}
JSON
  spawn containerd containerd --config "$state/containerd/config.toml"
}

run_kubelet() {
  mkdir -p "$state/kubelet"
  echo "# The names that pods look up are CoreDNS's." >"$state/kubelet/resolv.conf"
  cat >"$state/kubelet/config.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: false}
  x509: {clientCAFile: "$state/pki/ca.crt"}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://$containerd_socket
clusterDNS: ["$node_ip"]
clusterDomain: cluster.local
resolvConf: $state/kubelet/resolv.conf
podLogsDir: $state/logs/pods
volumePluginDir: $state/kubelet/volume-plugins
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
# Settings that need a whole machine, or that only such a machine allows.
oomScoreAdj: 0
maxOpenFiles: 20000
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
failSwapOn: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 0%, nodefs.available: 0%, imagefs.available: 0%}
kubeAPIQPS: 100
kubeAPIBurst: 200
YAML
  spawn kubelet kubelet --config="$state/kubelet/config.yaml" --kubeconfig="$state/kubelet.kubeconfig" \
    --root-dir="$state/kubelet/root" --cert-dir="$state/kubelet/pki" --node-ip="$node_ip" \
    --hostname-override=node1
}

await_node() {
  local deadline=$((SECONDS + 60))
  until kubectl_inside wait --for=condition=Ready node/node1 --timeout=60s >/dev/null 2>&1; do
    ((SECONDS < deadline)) || fail "the node is not ready after 60 s"
    sleep 0.2
  done
}

run_proxy() {
  spawn proxy kube-proxy --kubeconfig="$state/proxy.kubeconfig" --hostname-override=node1 \
    --proxy-mode=iptables --cluster-cidr="$pods" --oom-score-adj=0 --conntrack-max-per-core=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

# Configured as kubeadm does: names in the cluster are never answered from a cache, but with K8S_DNS_CACHE.
# Outside of it there are no names.
run_dns() {
  local cache="${K8S_DNS_CACHE:+cache $K8S_DNS_CACHE}"
  cat >"$state/Corefile" <<COREFILE
cluster.local in-addr.arpa ip6.arpa {
    bind $node_ip
    errors
    $cache
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $state/admin.kubeconfig
        ttl 30
    }
}
. {
    bind $node_ip
    template ANY ANY {
        rcode NXDOMAIN
    }
}
COREFILE
  spawn dns coredns -conf "$state/Corefile"
}

# Volumes for claims.
run_volumes() { spawn volumes bash "$harness/volumes" "$state"; }
