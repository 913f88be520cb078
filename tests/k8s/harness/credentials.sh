# Credentials: one authority, and a token for each program.
# shellcheck shell=bash disable=SC2154

make_credentials() {
  (
    umask 077
    mkdir -p "$state/pki"
    cd "$state/pki" || exit
    {
      new_key ca
      openssl req -x509 -new -key ca.key -subj /CN=ordinal-k8s -days 30 -out ca.crt
      certificate apiserver /CN=kube-apiserver "subjectAltName=IP:$node_ip,IP:127.0.0.1,IP:$kubernetes_ip,DNS:kubernetes.default.svc"
      certificate apiserver-to-kubelet "/O=system:masters/CN=apiserver" "extendedKeyUsage=clientAuth"
      openssl genrsa -out service-account.key 2048
    } 2>openssl.log
    : >tokens.csv
    token admin admin system:masters
    token controller-manager system:kube-controller-manager
    token scheduler system:kube-scheduler
    token kubelet system:node:node1 system:nodes
    token proxy system:kube-proxy
  )
}

new_key() { openssl ecparam -genkey -noout -name prime256v1 -out "$1.key"; }

# certificate NAME SUBJECT EXTENSION
certificate() {
  new_key "$1"
  openssl req -new -key "$1.key" -subj "$2" |
    openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile <(echo "$3") -out "$1.crt"
}

# token FILE USER [GROUP]: and the kubeconfig that has it.
token() {
  local token
  token="$(openssl rand -hex 16)"
  echo "$token,$2,$2${3:+,\"$3\"}" >>tokens.csv
  cat >"$state/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: ordinal-k8s
clusters:
  - name: ordinal-k8s
    cluster: {server: "$server", certificate-authority: "$state/pki/ca.crt"}
contexts:
  - name: ordinal-k8s
    context: {cluster: ordinal-k8s, user: "$1"}
users:
  - name: "$1"
    user: {token: "$token"}
YAML
}
