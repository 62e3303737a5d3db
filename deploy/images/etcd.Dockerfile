# etcd as Debian 13 ships it (3.5), for the chart's own etcd. Any image with `etcd` 3.4 or newer
# on its PATH will do instead: `etcd.image` in the chart's values.
#
#     docker build -f deploy/images/etcd.Dockerfile -t clade-etcd:0.1.0 .
#
# Pin the base by digest for what you publish: --build-arg BASE=debian@sha256:...
ARG BASE=debian:13-slim

FROM ${BASE}
# The suite pins versions, and its security updates are wanted. etcdctl is for people.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends etcd-client etcd-server \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent clade \
 && install -d -o 10001 -g 10001 -m 700 /var/lib/etcd
USER 10001:10001
EXPOSE 2379 2380
ENTRYPOINT ["etcd"]
