"""Objects of rendered YAML; as a program, prints a file without those of one kind.

usage: objects.py FILE KIND
"""

import sys

import yaml


def read(path):
    """Every object of a file."""
    with open(path, encoding="utf-8") as file:
        return [it for it in yaml.safe_load_all(file) if it]


def pods(objects):
    """(object, pod's spec) of whatever makes pods."""
    for it in objects:
        if it["kind"] in ("StatefulSet", "DaemonSet", "Deployment", "Job"):
            yield it, it["spec"]["template"]["spec"]


if __name__ == "__main__":
    _, file, kind = sys.argv
    yaml.safe_dump_all([it for it in read(file) if it["kind"] != kind], sys.stdout)
