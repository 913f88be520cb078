# syntax=docker/dockerfile:1
ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
WORKDIR /src

# Dependencies first, with an empty program: this layer is reused until they or the protocol change.
COPY Cargo.toml Cargo.lock build.rs clippy.toml ./
COPY proto proto
RUN mkdir -p src/bin \
 && touch src/lib.rs \
 && echo 'fn main() {}' | tee src/bin/kvd.rs src/bin/kvctl.rs >/dev/null \
 && cargo build --profile dist --locked --bins \
 && rm -r src

COPY src src
# The sources may be older than the empty program; cargo rebuilds what is newer.
RUN find src -type f -exec touch {} + \
 && cargo build --profile dist --locked --bins \
 && install -D -t /out target/dist/kvd target/dist/kvctl \
 && mkdir /data

# glibc and CA certificates, no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /usr/local/bin/
# A fresh volume that is mounted at /data takes this owner, the image's user. Its group is root's: a user
# of any other id, as OpenShift assigns, has that group.
COPY --from=build --chown=65532:0 --chmod=775 /data /data
USER 65532:65532
WORKDIR /data
# Clients; peers; probes and metrics.
EXPOSE 2379 2380 2381
# kvd transfers its leadership and drains its requests on SIGTERM.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/kvd"]
