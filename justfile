# Habits. Each recipe is a plain command or a few, so cargo alone is enough too.

# Lists the recipes.
default:
    @just --list --unsorted

# Everything that must hold; changes nothing.
verify:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo deny check
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
    cargo test

# Repairs what can be repaired: format, and what clippy knows how to change.
fix:
    cargo clippy --all-targets --fix --allow-dirty --allow-staged
    cargo fmt

# Starts a cluster of three members on this machine; Ctrl-C ends it.
dev:
    cargo run --release --bin kvd -- dev

# The long crash tests: members are killed at random points (KVD_CRASH_KILLS of them), and leaders that have not written what they promised (a hook of debug builds); nothing acknowledged is lost.
crash:
    cargo test --release --test cluster -- --ignored crash_long --nocapture
    cargo test --test cluster -- --ignored leader_crash_long --nocapture

# Starts `kvd dev` and uses every member with a real etcdctl.
smoke:
    cargo build --release --bins
    .ci/smoke "${CARGO_TARGET_DIR:-target}/release" "${XDG_CACHE_HOME:-$HOME/.cache}/ordinal"

# Asks kvd and a real etcd the same, in so many new random sequences of each kind, and compares.
differential sequences="300":
    .ci/etcd "${XDG_CACHE_HOME:-$HOME/.cache}/ordinal"
    KVD_DIFFERENTIAL_SEQUENCES={{sequences}} cargo test --test differential -- --nocapture

# Starts `kvd dev` and runs all examples on every member of it.
examples:
    cargo build --release --bins
    cargo build --examples
    .ci/examples "${CARGO_TARGET_DIR:-target}/release" "${CARGO_TARGET_DIR:-target}/debug/examples" "${XDG_CACHE_HOME:-$HOME/.cache}/ordinal"

# Writes the expected output of all scripts under tests/scripts anew; read the diff before you commit it.
golden:
    UPDATE_GOLDENFILES=1 cargo test --lib

# What CI does, with the tools it installs.
ci:
    .ci/run

# Brings a real Kubernetes up on this host (root; the first time builds it, which takes long), and loads the image.
k8s-up:
    cargo build --release --bins
    .ci/kubernetes "${XDG_CACHE_HOME:-$HOME/.cache}/ordinal"
    .ci/etcd "${XDG_CACHE_HOME:-$HOME/.cache}/ordinal"
    tests/k8s/cluster up
    tests/k8s/cluster load-image "${CARGO_TARGET_DIR:-target}/release"

# What can happen to pods, volumes and the control plane, while clients check every answer: `smoke`, `all`, or names with commas. K8S_RUNS repeats.
k8s-chaos scenarios="all":
    cargo test --test k8s --no-run
    K8S_SCENARIOS={{scenarios}} tests/k8s/cluster run cargo test --offline --test k8s -- --nocapture

# Ends it, and leaves nothing.
k8s-down:
    tests/k8s/cluster down
