# The worker with libtorch's CPU half, the sentence encoder and the CLIP vocabulary.
#
#     docker build -f deploy/images/worker.Dockerfile -t clade-worker:0.1.0 .
#
# For GPUs, mount a folder with libtorch_cuda.so (of torch 2.11) and the CUDA libraries that it
# needs, and name that file in CLADE_LIBTORCH_CUDA: the chart's `cudaHostPath` does both.
#
# Pin both bases by digest for what you publish: --build-arg BASE=debian@sha256:...
ARG BUILDER=rust:1.95-bookworm
ARG BASE=debian:12-slim

# The same as the coordinator's up to `make setup`, so that the two share these layers.
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
RUN cargo build --release --locked -p clade-worker

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libgcc-s1 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent clade
# The program looks for libtorch in ../lib.
COPY --from=builder /clade/assets/libtorch/lib/ /opt/clade/lib/
# Documents name them as `make demo` does: assets/all-minilm-l6-v2, assets/clip-bpe/...
COPY --from=builder /clade/assets/all-minilm-l6-v2/ /opt/clade/assets/all-minilm-l6-v2/
COPY --from=builder /clade/assets/clip-bpe/ /opt/clade/assets/clip-bpe/
COPY --from=builder /clade/target/release/clade-worker /opt/clade/bin/
COPY --from=builder /clade/LICENSE-APACHE /clade/LICENSE-MIT /usr/share/doc/clade/
ENV PATH=/opt/clade/bin:$PATH
WORKDIR /opt/clade
USER 10001:10001
ENTRYPOINT ["clade-worker"]
