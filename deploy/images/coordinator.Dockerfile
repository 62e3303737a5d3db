# The coordinator, and `clade` beside it for who looks in with `kubectl exec`.
#
#     docker build -f deploy/images/coordinator.Dockerfile -t clade-coordinator:0.1.0 .
#
# Pin both bases by digest for what you publish: --build-arg BASE=debian@sha256:...
ARG BUILDER=rust:1.95-bookworm
ARG BASE=debian:12-slim

# The same as the worker's up to `make setup`, so that the two share these layers.
FROM ${BUILDER} AS builder
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# The suite pins versions, and its security updates are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ git make pkg-config python3 python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /clade
COPY Makefile ./
COPY deploy/setup deploy/setup
RUN make setup
COPY . .
RUN cargo build --release --locked -p clade-coordinator -p clade

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libgcc-s1 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent clade
COPY --from=builder /clade/target/release/clade-coordinator /clade/target/release/clade /opt/clade/bin/
COPY --from=builder /clade/LICENSE-APACHE /clade/LICENSE-MIT /usr/share/doc/clade/
ENV PATH=/opt/clade/bin:$PATH
WORKDIR /opt/clade
USER 10001:10001
EXPOSE 7600 9600
ENTRYPOINT ["clade-coordinator"]
