# Images without a Docker engine: tar files of the programs that were built here, laid out as the
# Dockerfile does.
# shellcheck shell=bash disable=SC2154

pause_image=ordinal.test/pause:1
# Three names of one image: to roll from one to the next, and back.
image_tags=(ordinal:0.1.0 ordinal:0.1.0-next ordinal:0.1.0-after)

# archive ROOT CONFIG TAR TAG…: the files below ROOT as an image of one layer, in the form of `docker save`.
archive() {
  local root="$1" config="$2" tar="$3" work tags
  work="$(mktemp -d "$state/image.XXXXXX")"
  # The same files make the same image, at any time and by any user.
  tar --create --file "$work/layer.tar" --directory "$root" --sort=name --mtime=@0 \
    --numeric-owner --owner=0 --group=0 --exclude=./data .
  if [[ -d "$root/data" ]]; then
    tar --append --file "$work/layer.tar" --directory "$root" --sort=name --mtime=@0 \
      --numeric-owner --owner=65532 --group=0 --mode=775 ./data
  fi
  tags="$(printf '"%s",' "${@:4}")"
  cat >"$work/config.json" <<JSON
{"architecture": "$(go_architecture)", "os": "linux", "config": $config,
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)"]}}
JSON
  echo "[{\"Config\": \"config.json\", \"RepoTags\": [${tags%,}], \"Layers\": [\"layer.tar\"]}]" >"$work/manifest.json"
  tar --create --file "$tar" --directory "$work" manifest.json config.json layer.tar
  rm -rf -- "$work"
}

go_architecture() {
  case "$(uname -m)" in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
  esac
}

import() {
  local deadline=$((SECONDS + 30))
  until inside test -S "$containerd_socket"; do
    ((SECONDS < deadline)) || fail "containerd does not listen after 30 s"
    sleep 0.05
  done
  inside ctr --namespace k8s.io images import "$1" >>"$state/logs/import.log" 2>&1 ||
    fail "an image cannot be imported: $(tail -n 1 "$state/logs/import.log")"
}

# The sandbox of a pod: a process that does nothing.
load_pause() {
  local root="$state/pause"
  mkdir -p "$root"
  [[ -x "$root/pause" ]] || echo 'fn main() { loop { std::thread::park() } }' |
    rustc --crate-name pause -C opt-level=s -C strip=symbols -C target-feature=+crt-static -o "$root/pause" -
  archive "$root" '{"Entrypoint": ["/pause"], "User": "65535:65535"}' "$state/pause.tar" "$pause_image"
  import "$state/pause.tar"
}

load_image() {
  namespaces_live || skip "it is not up"
  [[ -x "$1/kvd" && -x "$1/kvctl" ]] || fail "there is no kvd and kvctl in $1: cargo build --profile dist --bins"
  local root="$state/image" library
  rm -rf -- "$root"
  install -D --target-directory "$root/usr/local/bin" "$1/kvd" "$1/kvctl"
  mkdir -p "$root/data" "$root/etc" "$root/tmp"
  # As in distroless/cc: the C library and the user database.
  ldd "$1/kvd" "$1/kvctl" | grep -o '/[^ :]*\.so[^ :]*' | sort -u | while read -r library; do
    install -D "$library" "$root$library"
  done
  echo 'nonroot:x:65532:65532::/data:/nonexistent' >"$root/etc/passwd"
  echo 'nonroot:x:65532:' >"$root/etc/group"
  # Names by DNS need this plug-in of the C library only where it is older than 2.34.
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  [[ ! -e /etc/ssl/certs/ca-certificates.crt ]] ||
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  archive "$root" "$(image_config)" "$state/image.tar" "${image_tags[@]}"
  import "$state/image.tar"
  rm -rf -- "$root" "$state/image.tar"
  echo "k8s: image ${image_tags[0]} of $("$1/kvd" --version)"
}

# The Dockerfile's last lines.
image_config() {
  cat <<'JSON'
{"User": "65532:65532", "WorkingDir": "/data", "StopSignal": "SIGTERM",
 "Entrypoint": ["/usr/local/bin/kvd"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
 "ExposedPorts": {"2379/tcp": {}, "2380/tcp": {}, "2381/tcp": {}}}
JSON
}
