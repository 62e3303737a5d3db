"""What must hold of the rendered chart, whatever the values.

usage: rendered.py FILE...
"""

import base64
import hashlib
import re
import ssl
import sys
import tempfile

import yaml
from objects import pods, read

FLAGS = {
    "coordinator": {"--tls-cert", "--tls-key", "--client-ca", "--tokens", "--etcd-ca", "--etcd-cert",
                    "--etcd-key", "--metrics-listen", "--advertise", "--cluster"},
    "worker": {"--coordinator", "--ca", "--node", "--name", "--state", "--cache", "--slots"},
    "etcd": {"--client-cert-auth", "--trusted-ca-file", "--cert-file", "--key-file", "--peer-client-cert-auth",
             "--peer-trusted-ca-file", "--peer-cert-file", "--peer-key-file"},
}
# An agent has no answer over HTTP that would say more than that its process lives.
WITHOUT_PROBES = {"worker"}


def containers_are_confined(objects):
    for it, spec in pods(objects):
        name = it["metadata"]["name"]
        assert spec["automountServiceAccountToken"] is False, name
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] and pod["runAsUser"] > 0, name
        assert pod["seccompProfile"]["type"] == "RuntimeDefault", name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert "initContainers" not in spec, name
        for box in spec["containers"]:
            security = box["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["privileged"] is False, name
            assert "resources" in box, name
            if box["name"] not in WITHOUT_PROBES:
                ports = {it["name"] for it in box["ports"]}
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    assert box[probe]["httpGet"]["port"] in ports, f"{name}: {probe}"


def accounts_have_no_token(objects):
    accounts = {it["metadata"]["name"]: it for it in objects if it["kind"] == "ServiceAccount"}
    for it, spec in pods(objects):
        account = accounts[spec["serviceAccountName"]]
        assert account["automountServiceAccountToken"] is False, it["metadata"]["name"]


def everybody_proves_who_he_is(objects):
    for it, spec in pods(objects):
        for box in spec["containers"]:
            given = {arg.split("=")[0] for arg in box["args"]}
            missing = FLAGS[box["name"]] - given
            assert not missing, f"{it['metadata']['name']} lacks {missing}"
            if box["name"] == "worker":
                assert "--token-file" in given or {"--cert", "--key"} <= given, it["metadata"]["name"]
            for arg in box["args"]:
                assert "http://" not in arg or arg.startswith("--listen-metrics-urls="), arg
            assert not any("allow-" in it or "insecure" in it for it in given), given


def files_named_by_flags_are_mounted(objects):
    for it, spec in pods(objects):
        volumes = {volume["name"] for volume in spec["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in it["spec"].get("volumeClaimTemplates", [])}
        for box in spec["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in box["volumeMounts"]}
            assert set(mounts.values()) == volumes, f"{it['metadata']['name']}: {mounts} and {volumes}"
            for arg in box["args"]:
                path = arg.partition("=")[2]
                if path.startswith("/etc/") or path.startswith("/var/"):
                    assert any(path == m or path.startswith(m + "/") for m in mounts), f"{arg}: {mounts}"


def secrets_of_ours_that_are_mounted_exist(objects):
    made = {it["metadata"]["name"]: it for it in objects if it["kind"] == "Secret"}
    for it, spec in pods(objects):
        for volume in spec["volumes"]:
            if "secret" not in volume or volume["secret"]["secretName"] not in made:
                # The user's own, which the values name.
                continue
            secret = made[volume["secret"]["secretName"]]
            for item in volume["secret"].get("items", []):
                assert item["key"] in secret["data"], f"{it['metadata']['name']}: {volume}"


def no_secret_is_in_plain_sight(objects):
    secrets = set()
    for it in objects:
        if it["kind"] == "Secret":
            for key, value in it["data"].items():
                if key.endswith(".key") or key in ("token", "before"):
                    secrets |= {value, base64.b64decode(value).decode()}
    for it in objects:
        if it["kind"] != "Secret":
            text = repr(it)
            assert not any(secret in text for secret in secrets), it["metadata"]["name"]


def authorities_are_mounted_by_nobody(objects):
    for it, spec in pods(objects):
        for volume in spec["volumes"]:
            name = volume.get("secret", {}).get("secretName", "")
            assert not name.endswith("-ca"), f"{it['metadata']['name']} mounts {name}"
        if it["metadata"]["labels"]["app.kubernetes.io/component"] == "worker":
            ca = next(it for it in spec["volumes"] if it["name"] == "ca")
            assert [item["key"] for item in ca["secret"]["items"]] == ["ca.crt"], "workers see the coordinators' key"
            assert not any("etcd" in it.get("secret", {}).get("secretName", "") for it in spec["volumes"])


def names_are_within_limits(objects):
    for it in objects:
        name = it["metadata"]["name"]
        assert len(name) <= 63, name
        if it["kind"] in ("StatefulSet", "DaemonSet"):
            # A revision's label is the name and a hash of ten.
            assert len(name) + 11 <= 63, name
        if it["kind"] == "StatefulSet":
            assert len(f"{name}-{it['spec']['replicas'] - 1}") <= 63, name
        labels = dict(it["metadata"].get("labels", {}))
        labels.update(it.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {}))
        assert all(len(value) <= 63 for value in labels.values()), labels
    kinds = [(it["kind"], it["metadata"]["name"]) for it in objects]
    assert len(kinds) == len(set(kinds)), "two objects of one name"


def services_and_budgets_choose_pods(objects):
    labels = [(it["metadata"]["name"], it["spec"]["template"]["metadata"]["labels"]) for it, _ in pods(objects)]
    for it in objects:
        spec = it.get("spec", {})
        selector = {
            "Service": lambda: spec["selector"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
            "StatefulSet": lambda: spec["selector"]["matchLabels"],
            "DaemonSet": lambda: spec["selector"]["matchLabels"],
        }.get(it["kind"], lambda: None)()
        if selector is None:
            continue
        chosen = [name for name, of_pod in labels if selector.items() <= of_pod.items()]
        assert chosen, f"{it['kind']} {it['metadata']['name']} chooses no pod"
        if it["kind"] in ("StatefulSet", "DaemonSet"):
            assert chosen == [it["metadata"]["name"]], f"{it['metadata']['name']} chooses {chosen}"
    services = {it["metadata"]["name"] for it in objects if it["kind"] == "Service"}
    for it, _ in pods(objects):
        if it["kind"] == "StatefulSet":
            assert it["spec"]["serviceName"] in services, it["metadata"]["name"]


def hosts(arguments, flag):
    """The host names in the addresses of one flag."""
    found = [arg for arg in arguments if arg.startswith(flag + "=")]
    return re.findall(r"https://([^:/,]+)", " ".join(found))


def certificates_hold_for_every_name_that_is_called(objects):
    made = {it["metadata"]["name"]: it["data"] for it in objects if it["kind"] == "Secret"}
    # Everybody may call the Service, and an administrator a port that is forwarded to him.
    called = {}
    for it in objects:
        if it["kind"] == "Service" and it["spec"].get("clusterIP") != "None":
            name = it["metadata"]["name"]
            called[f"{name}-coordinator-tls"] = {name, f"{name}.research.svc", "localhost"}
    for it, spec in pods(objects):
        for box in spec["containers"]:
            if box["name"] == "worker":
                secret = next(v for v in spec["volumes"] if v["name"] == "ca")["secret"]["secretName"]
                called.setdefault(secret, set()).update(hosts(box["args"], "--coordinator"))
            if box["name"] == "etcd":
                secret = next(v for v in spec["volumes"] if v["name"] == "tls")["secret"]["secretName"]
                called.setdefault(secret, set()).update(hosts(box["args"], "--initial-cluster"), {"localhost"})
            if box["name"] == "coordinator":
                secret = spec["volumes"][1]["secret"]["secretName"].replace("-client-tls", "-tls")
                called.setdefault(secret, set()).update(hosts(box["args"], "--etcd"))
    for secret, names in called.items():
        if secret in made:
            for name in names:
                shake_hands(made[secret], made[secret], name)
    server, etcd = (
        next((data for name, data in made.items() if name.endswith(end)), None)
        for end in ("-coordinator-tls", "-etcd-tls")
    )
    if server and etcd:
        for ours, theirs in ((server, etcd), (etcd, server)):
            try:
                shake_hands(ours, theirs, "localhost")
            except ssl.SSLError:
                continue
            raise AssertionError("one authority's certificate opens the other's doors")


def shake_hands(server, client, name):
    """Raises unless both sides accept each other, and the server's certificate is for `name`."""
    def side(purpose, data, verify):
        context = ssl.SSLContext(purpose)
        with tempfile.NamedTemporaryFile() as pair, tempfile.NamedTemporaryFile() as ca:
            pair.write(base64.b64decode(data["tls.crt"]) + base64.b64decode(data["tls.key"]))
            pair.flush()
            context.load_cert_chain(pair.name)
            ca.write(base64.b64decode(data["ca.crt"]))
            ca.flush()
            context.load_verify_locations(ca.name)
        context.verify_mode = verify
        return context

    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = side(ssl.PROTOCOL_TLS_SERVER, server, ssl.CERT_REQUIRED).wrap_bio(
        to_server, to_client, server_side=True)
    calling = side(ssl.PROTOCOL_TLS_CLIENT, client, ssl.CERT_REQUIRED).wrap_bio(
        to_client, to_server, server_hostname=name)
    left = [calling, serving]
    for _ in range(8):
        for it in list(left):
            try:
                it.do_handshake()
                left.remove(it)
            except ssl.SSLWantReadError:
                pass
    assert not left, f"no end to the handshake for {name}"
    try:
        # In TLS 1.3 a client hears of its refusal only when it reads.
        calling.read(1)
    except ssl.SSLWantReadError:
        pass


def tokens_are_known_to_coordinators_by_hash_only(objects):
    made = {it["metadata"]["name"]: it["data"] for it in objects if it["kind"] == "Secret"}
    known = [base64.b64decode(data["tokens"]).decode() for data in made.values() if "tokens" in data]
    tokens = {name: base64.b64decode(data["token"]).decode() for name, data in made.items() if "token" in data}
    if not known:
        assert not tokens, tokens.keys()
        return
    entries = {entry["sha256"]: entry for entry in yaml.safe_load(known[0])}
    workers = [it["metadata"]["name"] for it, spec in pods(objects) if spec["containers"][0]["name"] == "worker"]
    for name, token in tokens.items():
        assert len(token) >= 40, name
        entry = entries.get(hashlib.sha256(token.encode()).hexdigest())
        assert entry, f"coordinators do not know {name}"
        # All workers share one token, and their nodes are named by Kubernetes.
        shared = {"nodes"} if entry["role"] == "worker" else set()
        assert set(entry) == {"name", "role", "sha256", "expires"} | shared and len(entry["name"]) <= 64, entry
        assert entry.get("nodes", "any") == "any", entry
        assert entry["role"] == ("worker" if name.endswith("-worker-token") else "admin"), entry
        assert token not in known[0], name
        if entry["role"] == "worker":
            assert all(worker.startswith(entry["name"] + "-") for worker in workers), entry


def nothing_runs_on_installation(objects):
    for it in objects:
        annotations = it["metadata"].get("annotations", {})
        assert not any(key.startswith("helm.sh/hook") for key in annotations), it["metadata"]["name"]
        assert it["kind"] != "Job", it["metadata"]["name"]


CLAIMS = [
    containers_are_confined, accounts_have_no_token, everybody_proves_who_he_is,
    files_named_by_flags_are_mounted, secrets_of_ours_that_are_mounted_exist, no_secret_is_in_plain_sight,
    authorities_are_mounted_by_nobody, names_are_within_limits, services_and_budgets_choose_pods,
    certificates_hold_for_every_name_that_is_called, tokens_are_known_to_coordinators_by_hash_only,
    nothing_runs_on_installation,
]


def main(paths):
    for path in paths:
        objects = read(path)
        assert any(True for _ in pods(objects)), f"no pods in {path}"
        for claim in CLAIMS:
            try:
                claim(objects)
            except (AssertionError, ssl.SSLError) as broken:
                sys.exit(f"chart: {path}: {claim.__name__.replace('_', ' ')}: broken: {broken!r}")
    print(f"chart: {len(CLAIMS)} claims hold of {len(paths)} renderings")


if __name__ == "__main__":
    main(sys.argv[1:])
