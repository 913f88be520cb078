# Habits. Each recipe is a plain command or a few, so cargo alone is enough too.

cache := '"${XDG_CACHE_HOME:-$HOME/.cache}/ordinal"'
binaries := '"${CARGO_TARGET_DIR:-target}/dist"'
examples := '"${CARGO_TARGET_DIR:-target}/debug/examples"'

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

# Repairs format and the lints that clippy can repair.
fix:
    cargo clippy --all-targets --fix --allow-dirty --allow-staged
    cargo fmt

# Starts a cluster of three members on this machine; Ctrl-C stops it.
dev:
    cargo run --release --bin kvd -- dev

# Builds kvd and kvctl as images and benchmarks use them: slower to build than --release, a little faster to run.
dist:
    cargo build --locked --profile dist --bins

# Updates the expected output of all scripts under tests/scripts; read the diff before you commit it.
golden:
    UPDATE_GOLDENFILES=1 cargo test --lib

# Runs the long crash tests: members are killed KVD_CRASH_KILLS times at random points, and leaders with unwritten promises (a hook of debug builds); no acknowledged write is lost.
crash:
    cargo test --release --test system -- --ignored crash_long --nocapture
    cargo test --test system -- --ignored leader_crash_long --nocapture

# Runs the random histories of bootstrap and planner: crashes, lost volumes, lost answers, changed StatefulSets.
membership-histories cases="100000":
    PROPTEST_CASES={{cases}} cargo test --release --lib membership:: -- --nocapture

# Starts `kvd dev` and uses every member with a real etcdctl.
smoke: dist
    .ci/smoke {{binaries}} {{cache}}

# Kills the members of a cluster of processes one after another while a real etcdctl uses them.
smoke-kills: dist
    .ci/smoke-kills {{binaries}} {{cache}}

# Tests the shipped alerts with promtool, and with a real Prometheus on members that lose their majority.
alerts: dist
    .ci/tools prometheus {{cache}}
    PATH={{cache}}/prometheus/usr/bin:"$PATH" tests/alerts/run {{binaries}}

# Sends the same random sequences of requests to kvd and to a real etcd, and compares the answers.
differential sequences="300":
    .ci/tools etcd {{cache}}
    KVD_DIFFERENTIAL_SEQUENCES={{sequences}} cargo test --test system differential:: -- --nocapture

# Sends a table of requests to kvd through grpc-go, grpc-core, grpc-js and grpc-java, where they are installed.
interop: dist
    .ci/interop {{binaries}} {{cache}}

# Starts `kvd dev` and runs all examples on every member.
examples: dist
    cargo build --examples
    .ci/examples {{binaries}} {{examples}} {{cache}}

# Prints, for each module: long functions, import cycles, the ratio of tests to code, word rates.
shape path=".":
    cargo run --quiet --example shape -- {{path}}

# Starts a real Kubernetes on this host (root; the first build of it takes half an hour), and loads the image.
k8s-up: dist
    .ci/tools container-runtime {{cache}}
    .ci/tools kubernetes {{cache}}
    .ci/tools etcd {{cache}}
    tests/k8s/cluster up
    tests/k8s/cluster load-image {{binaries}}

# Runs chaos scenarios for pods, volumes and the control plane while clients check every answer: `smoke`, `all`, or names with commas. K8S_RUNS repeats.
k8s-chaos scenarios="all":
    cargo test --test system --no-run
    K8S_SCENARIOS={{scenarios}} tests/k8s/cluster run cargo test --offline --test system k8s:: -- --nocapture

# Asks the API servers of the oldest and the newest supported Kubernetes to accept all manifests; the first build takes long.
k8s-versions:
    .ci/tools etcd {{cache}}
    .ci/tools kubernetes {{cache}}
    .ci/tools kubernetes-oldest {{cache}}
    tests/k8s/versions {{cache}}

# Stops that Kubernetes and removes all of it.
k8s-down:
    tests/k8s/cluster down

# Runs CI, with the tools that it installs.
ci:
    .ci/run

# Makes a release: checks, version, commit, tag, binaries, checksums, image. With --dry-run in front it only prints.
release *arguments:
    .ci/release {{arguments}}
