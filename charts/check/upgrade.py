"""Upgrades, without a cluster: what helm made is kept, renewed and replaced when it should be.

A small server answers helm as the API of Kubernetes does, with the objects that came out of the
time before. Helm itself is the real one; it keeps no releases here, so each time it adopts what
is there already.

usage: upgrade.py HELM CHART
"""

import base64
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

import yaml

NAMESPACE = "research"
RESOURCES = {
    "v1": [("secrets", "Secret"), ("services", "Service"), ("serviceaccounts", "ServiceAccount")],
    "apps/v1": [("statefulsets", "StatefulSet"), ("daemonsets", "DaemonSet")],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget")],
    "networking.k8s.io/v1": [("networkpolicies", "NetworkPolicy")],
}


class Cluster:
    """The objects of one cluster, and a server that shows them."""

    def __init__(self):
        self.objects = {}
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.tell(*cluster.answer(self.path.split("?")[0]))

            def do_POST(self):
                self.tell(201, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def do_PATCH(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def tell(self, code, body):
                text = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path):
        if path == "/version":
            return 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = []
            for version in RESOURCES:
                if "/" in version:
                    named = {"groupVersion": version, "version": version.split("/")[1]}
                    groups.append({"name": version.split("/")[0], "versions": [named], "preferredVersion": named})
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        for version, kinds in RESOURCES.items():
            prefix = f"/api/{version}" if version == "v1" else f"/apis/{version}"
            if path == prefix:
                resources = [{"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "create", "patch"]}
                             for plural, kind in kinds]
                return 200, {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
            for plural, kind in kinds:
                start = f"{prefix}/namespaces/{NAMESPACE}/{plural}/"
                if path.startswith(start) and (kind, path[len(start):]) in self.objects:
                    return 200, self.objects[kind, path[len(start):]]
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    def upgrade(self, helm, chart, values):
        """Installs into this cluster, which then holds what helm says it put there."""
        with tempfile.TemporaryDirectory() as folder:
            config = os.path.join(folder, "config")
            with open(config, "w", encoding="utf-8") as file:
                address = f"http://127.0.0.1:{self.server.server_port}"
                yaml.safe_dump({
                    "apiVersion": "v1", "kind": "Config", "current-context": "it",
                    "clusters": [{"name": "it", "cluster": {"server": address}}],
                    "users": [{"name": "it", "user": {}}],
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                }, file)
            os.chmod(config, 0o600)
            releases = os.path.join(folder, "releases")
            with open(releases, "w", encoding="utf-8") as file:
                file.write("[]")
            done = subprocess.run(
                [helm, "install", "lab", chart, "--namespace", NAMESPACE, "--output", "json",
                 "--disable-openapi-validation", "--kubeconfig", config, "--values", "-"],
                input=json.dumps(values), env=os.environ | {"HELM_DRIVER": "memory", "HELM_MEMORY_DRIVER_DATA": releases},
                capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            return done.stderr
        objects = [it for it in yaml.safe_load_all(json.loads(done.stdout)["manifest"]) if it]
        owner = {"meta.helm.sh/release-name": "lab", "meta.helm.sh/release-namespace": NAMESPACE}
        for it in objects:
            it["metadata"]["namespace"] = NAMESPACE
            it["metadata"].setdefault("annotations", {}).update(owner)
            it["metadata"].setdefault("labels", {})["app.kubernetes.io/managed-by"] = "Helm"
        self.objects = {(it["kind"], it["metadata"]["name"]): it for it in objects}
        return None

    def secret(self, name, key):
        held = self.objects["Secret", f"lab-clade-{name}"]["data"].get(key, "")
        return base64.b64decode(held).decode()

    def certificates(self):
        names = ["ca", "etcd-ca", "coordinator-tls", "etcd-tls", "etcd-client-tls"]
        return {name: self.secret(name, "tls.crt") for name in names}

    def template(self, name):
        return self.objects["StatefulSet", f"lab-clade-{name}"]["spec"]["template"]

    def age(self, name, days):
        annotations = self.objects["Secret", f"lab-clade-{name}"]["metadata"]["annotations"]
        annotations["clade/issued"] = str(int(time.time()) - days * 86400)


def differing(before, after):
    return sorted(name for name in before if before[name] != after[name])


def main(helm, chart):
    cluster = Cluster()

    def upgrade(**values):
        trouble = cluster.upgrade(helm, chart, values)
        assert trouble is None, trouble

    upgrade()
    first = {key: value for key, value in cluster.objects.items()}
    upgrade()
    changed = [key for key in first if first[key] != cluster.objects.get(key)]
    assert not changed, f"an upgrade that changes nothing changed {changed}"

    certificates = cluster.certificates()
    pods = cluster.template("coordinator"), cluster.template("etcd")
    cluster.age("coordinator-tls", 300)
    upgrade()
    assert certificates == cluster.certificates(), "renewed in the first half of its life"
    cluster.age("coordinator-tls", 400)
    upgrade()
    renewed = differing(certificates, cluster.certificates())
    assert renewed == ["coordinator-tls"], f"of an old certificate came {renewed}"
    assert pods == (cluster.template("coordinator"), cluster.template("etcd")), "pods start anew for a file they reread"

    certificates = cluster.certificates()
    upgrade(tls={"generation": 2})
    renewed = differing(certificates, cluster.certificates())
    assert renewed == ["coordinator-tls", "etcd-client-tls", "etcd-tls"], renewed
    assert pods[0] != cluster.template("coordinator"), "coordinators go on with their old certificate for etcd"
    assert pods[1] == cluster.template("etcd"), "etcd starts anew for a file it rereads"
    certificates = cluster.certificates()
    upgrade(tls={"generation": 2, "extraNames": ["clade.example.org"]})
    assert differing(certificates, cluster.certificates()) == ["coordinator-tls"]

    certificates = cluster.certificates()
    del cluster.objects["Secret", "lab-clade-ca"]
    upgrade(tls={"generation": 2, "extraNames": ["clade.example.org"]})
    assert differing(certificates, cluster.certificates()) == ["ca", "coordinator-tls"]

    del cluster.objects["Secret", "lab-clade-etcd-ca"]
    upgrade()
    assert pods[1] != cluster.template("etcd"), "etcd goes on with its old authority"

    tokens = {name: cluster.secret(name, "token") for name in ("admin-token", "worker-token")}
    workers = cluster.template("worker-cpu")
    known = yaml.safe_load(cluster.secret("tokens", "tokens"))
    upgrade(tokens={"generation": 2})
    for name, old in tokens.items():
        assert cluster.secret(name, "token") != old, f"{name} is not new"
        assert cluster.secret(name, "before") == old, f"{name} before is lost"
    now_known = yaml.safe_load(cluster.secret("tokens", "tokens"))
    assert len(now_known) == 2 * len(known), now_known
    for entry in known:
        assert entry in now_known, "a worker that has not read its new token is shut out"
    assert workers == cluster.template("worker-cpu"), "new tokens stop ranks"
    again = cluster.secret("tokens", "tokens")
    upgrade(tokens={"generation": 2})
    assert again == cluster.secret("tokens", "tokens"), "tokens change by themselves"
    upgrade(tokens={"generation": 3})
    for entry in known:
        assert entry["sha256"] not in cluster.secret("tokens", "tokens"), "the first tokens are still good"

    trouble = cluster.upgrade(helm, chart, {"etcd": {"replicas": 5}})
    assert trouble and "fixed at installation" in trouble, f"etcd grew by an upgrade: {trouble}"
    print("chart: upgrades keep what they should, and renew what they should")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except AssertionError as broken:
        sys.exit(f"chart: upgrade: {broken}")
