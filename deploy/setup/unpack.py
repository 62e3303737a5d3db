"""Copies named members of a wheel (a zip file) into a folder.

usage: unpack.py WHEEL FOLDER MEMBER=PATH...

A MEMBER that ends in "/" stands for every member below it. A member that is
not there is an error, as is a path that would leave FOLDER.
"""

import os
import shutil
import sys
import zipfile


def wanted(names, member, path):
    if not member.endswith("/"):
        if member not in names:
            sys.exit(f"{member} is not in the wheel")
        return [(member, path)]
    below = [n for n in names if n.startswith(member) and not n.endswith("/")]
    if not below:
        sys.exit(f"nothing below {member} is in the wheel")
    return [(n, os.path.join(path, n[len(member):])) for n in below]


def main(wheel, folder, pairs):
    root = os.path.realpath(folder)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for pair in pairs:
            member, _, path = pair.partition("=")
            for name, to in wanted(names, member, path):
                target = os.path.realpath(os.path.join(root, to))
                if not target.startswith(root + os.sep):
                    sys.exit(f"{name} would be written outside {folder}")
                os.makedirs(os.path.dirname(target), exist_ok=True)
                # The zip's own checksum is checked while reading.
                with archive.open(name) as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3:])
    except (OSError, zipfile.BadZipFile) as why:
        sys.exit(f"{sys.argv[1]}: {why}")
