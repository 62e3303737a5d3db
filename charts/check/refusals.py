"""Values that must be refused, each with a word that the refusal must say.

usage: refusals.py HELM CHART
"""

import concurrent.futures
import json
import subprocess
import sys

EXTERNAL = {"endpoints": ["https://etcd-0.example.org:2379"], "existingSecret": "etcd-client"}
ALICE = {"name": "alice", "role": "viewer", "sha256": "0" * 64, "expires": "never"}

# What is wrong, the values, what the refusal names.
REFUSED = [
    ("a misspelt key", {"coordinators": {"replicas": 3}}, "coordinators"),
    ("a misspelt key within", {"coordinator": {"replica": 3}}, "replica"),
    ("a misspelt key of a pool", {"workers": {"pools": [{"name": "cpu", "slot": 1}]}}, "slot"),
    ("no coordinator", {"coordinator": {"replicas": 0}}, "coordinator.replicas"),
    ("a number as a text", {"coordinator": {"replicas": "3"}}, "coordinator.replicas"),
    ("an even etcd", {"etcd": {"replicas": 2}}, "etcd.replicas"),
    ("no etcd at all", {"etcd": {"enabled": False}}, "etcd.external"),
    ("two etcds", {"etcd": {"external": EXTERNAL}}, "etcd.external"),
    ("an etcd without TLS", {"etcd": {"enabled": False, "external": EXTERNAL | {"endpoints": ["http://a:2379"]}}},
     "endpoints"),
    ("an etcd without a client certificate", {"etcd": {"enabled": False, "external": EXTERNAL | {"existingSecret": ""}}},
     "existingSecret"),
    ("a pool without a name", {"workers": {"pools": [{"replicas": 1}]}}, "name"),
    ("a pool whose name is too long", {"workers": {"pools": [{"name": "thirteen-char"}]}}, "name"),
    ("two pools of one name", {"workers": {"pools": [{"name": "a"}, {"name": "a"}]}}, "two pools"),
    ("a name for all pools", {"workers": {"defaults": {"name": "a"}}}, "workers.defaults"),
    ("no slots", {"workers": {"pools": [{"name": "a", "slots": 0}]}}, "slots"),
    ("slots by guess", {"workers": {"pools": [{"name": "a", "slots": "many"}]}}, "slots"),
    ("another kind of pods", {"workers": {"pools": [{"name": "a", "kind": "Deployment"}]}}, "kind"),
    ("no time to save", {"workers": {"pools": [{"name": "a", "terminationGraceSeconds": 5}]}}, "terminationGraceSeconds"),
    ("a label that is none", {"workers": {"pools": [{"name": "a", "labels": {"gpu": "h 100"}}]}}, "gpu"),
    ("the label that the chart sets", {"workers": {"pools": [{"name": "a", "labels": {"pool": "b"}}]}}, "pool"),
    ("a domain that is none", {"workers": {"pools": [{"name": "a", "domain": "rack,b"}]}}, "domain"),
    ("a folder that is none", {"workers": {"pools": [{"name": "a", "state": {"hostPath": "data"}}]}}, "hostPath"),
    ("a name that leaves no room", {"fullnameOverride": "a" * 31}, "fullnameOverride"),
    ("a name in capitals", {"fullnameOverride": "Clade"}, "fullnameOverride"),
    ("a digest that is none", {"etcd": {"image": {"digest": "sha256:abc"}}}, "digest"),
    ("a flag in a tag", {"workers": {"image": {"tag": "1 --privileged"}}}, "tag"),
    ("a secret in plain sight", {"objectStore": {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}}, "AWS_SECRET_ACCESS_KEY"),
    ("a variable that is no text", {"objectStore": {"env": {"AWS_REGION": 1}}}, "AWS_REGION"),
    ("a certificate for ever", {"tls": {"days": 36500}}, "tls.days"),
    ("a name that is an address", {"tls": {"extraNames": ["https://clade.example.org"]}}, "extraNames"),
    ("TLS switched off", {"tls": {"enabled": False}}, "enabled"),
    ("tokens switched off", {"tokens": {"enabled": False}}, "enabled"),
    ("a token instead of its hash", {"tokens": {"extra": [ALICE | {"sha256": "clade_0123"}]}}, "sha256"),
    ("a token without an end", {"tokens": {"extra": [{"name": "alice", "role": "viewer", "sha256": "0" * 64}]}}, "expires"),
    ("a role that is none", {"tokens": {"extra": [ALICE | {"role": "root"}]}}, "role"),
    ("a peer that chooses nothing", {"networkPolicy": {"clients": [{}]}}, "clients"),
    ("resources that are none", {"coordinator": {"resources": {"limits": {"memory": "1 GB"}}}}, "memory"),
    ("claims instead of resources", {"etcd": {"resources": {"claims": []}}}, "claims"),
    ("a toleration misspelt", {"coordinator": {"tolerations": [{"key": "a", "op": "Exists"}]}}, "op"),
    ("a value taken away", {"tls": {"existingSecrets": None}}, "existingSecrets"),
]


def render(helm, chart, values):
    return subprocess.run(
        [helm, "template", "lab", chart, "--values", "-"],
        input=json.dumps(values), capture_output=True, text=True, timeout=30, check=False)


def main(helm, chart):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda it: render(helm, chart, it[1]), REFUSED)
        for (what, values, word), answer in zip(REFUSED, answers):
            if answer.returncode == 0:
                sys.exit(f"chart: {what} was not refused: {values}")
            if word not in answer.stderr:
                sys.exit(f"chart: {what} was refused without naming {word}:\n{answer.stderr}")
    print(f"chart: {len(REFUSED)} bad values are refused by name")


if __name__ == "__main__":
    main(*sys.argv[1:])
