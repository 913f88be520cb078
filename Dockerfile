# syntax=docker/dockerfile:1
ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
WORKDIR /src

# Dependencies first: this layer stays until they, or the protocol, change.
COPY Cargo.toml Cargo.lock build.rs clippy.toml ./
COPY proto proto
RUN mkdir -p src/bin \
 && touch src/lib.rs \
 && echo 'fn main() {}' | tee src/bin/kvd.rs src/bin/kvctl.rs >/dev/null \
 && cargo build --release --locked --bins \
 && rm -r src

COPY src src
# What was copied may be older than what stood in for it, and would not be built.
RUN find src -type f -exec touch {} + \
 && cargo build --release --locked --bins \
 && install -D -t /out target/release/kvd target/release/kvctl \
 && mkdir /data

# glibc and CA certificates, no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /usr/local/bin/
# The image's user, so that a fresh volume that is mounted here belongs to it.
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
WORKDIR /data
# Clients; peers; probes and metrics.
EXPOSE 2379 2380 2381
# kvd hands its leadership over when it is asked to stop.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/kvd"]
