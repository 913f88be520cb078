# Disks of their own for volumes: a file with a file system, which can be frozen, so that each write hangs
# while the member's process and its network go on.
# shellcheck shell=bash disable=SC2154

# give_disk VOLUME: keeps its contents. No pod may use it.
give_disk() {
  local volume="$1" image="$1.img" owner mode
  owner="$(stat --format %u:%g "$volume")" mode="$(stat --format %a "$volume")"
  truncate --size 1G "$image"
  mkfs.ext4 -q -E lazy_itable_init=1 -d "$volume" "$image"
  inside mount -o loop "$image" "$volume"
  # The kubelet takes a file system that is mounted already for one that other pods share, and leaves it so.
  inside chown "$owner" "$volume"
  inside chmod "$mode" "$volume"
}

freeze() { inside fsfreeze --freeze "$1"; }

# All disks. Processes that wait for a frozen disk cannot even be killed.
thaw() {
  local image
  for image in "$state"/volumes/*.img; do
    [[ -e "$image" ]] || continue
    inside fsfreeze --unfreeze "${image%.img}" 2>/dev/null || true
  done
}
