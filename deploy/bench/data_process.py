"""Runs the programs that are measured, one at a time, and copies files for comparison."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
# Nothing that is measured takes so long on a machine that can hold it.
LONGEST_S = 3600


class RunError(Exception):
    """A program failed, hung or said what makes no sense. `who` is to blame; its text is one line."""

    def __init__(self, who, why):
        super().__init__(f"{who}: {why}")
        self.who = who


def run(who, command, log):
    """Runs a program; returns the object on its last line, with the time, CPU and peak memory that were seen from here."""
    start = time.perf_counter()
    with pathlib.Path(log).open("w") as stderr:
        child = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=stderr, text=True)
    watchdog = threading.Timer(LONGEST_S, child.kill)
    watchdog.start()
    try:
        said = child.stdout.read()
        # This process stays small, since a child's peak starts at what its parent held.
        _, status, usage = os.wait4(child.pid, 0)
    finally:
        watchdog.cancel()
        child.stdout.close()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        tail = pathlib.Path(log).read_text().strip().splitlines()
        raise RunError(who, f"ended with status {child.returncode}" + (f": {tail[-1]}" if tail else ""))
    try:
        found = json.loads((said.strip().splitlines() or [""])[-1])
    except ValueError:
        raise RunError(who, "its last line is no JSON object") from None
    seen = {"wall_seconds": time.perf_counter() - start, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_rss_mb": usage.ru_maxrss * 1024 / 1e6}
    return {**found, "seen": seen}


def script(name, log, *options):
    """One of the Python programs in this folder."""
    return run(name.removesuffix(".py"), [sys.executable, HERE / name, *options], log)


def size_of(folder):
    return sum(it.stat().st_size for it in pathlib.Path(folder).rglob("*") if it.is_file())


def link(tars, folder):
    """Makes `folder` hold the same tars, without a byte more on the disk; returns the pattern that matches them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for tar in tars:
        os.link(tar, folder / tar.name)
    return f"{folder}/*.tar"


def may_drop_caches():
    return os.geteuid() == 0 and os.access("/proc/sys/vm/drop_caches", os.W_OK)


def make_cold(folder):
    """Takes what lies in `folder` out of the page cache, once nothing waits to be written."""
    os.sync()
    if may_drop_caches():
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("1\n")
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_warm(folder):
    """Reads all of `folder`, so that it lies in the page cache, and lets earlier output reach the disk."""
    for path in sorted(pathlib.Path(folder).rglob("*.tar")):
        with path.open("rb") as file:
            while file.read(1 << 22):
                pass
    os.sync()


def copy(source, target):
    """What `cp` and the sync of every file and folder take: the time that the disk needs for the same bytes."""
    shutil.rmtree(target, ignore_errors=True)
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(["cp", "-r", "--reflink=never", str(source), str(target)], capture_output=True, text=True)
    if done.returncode:
        raise RunError("cp", done.stderr.strip().splitlines()[-1])
    for path in [*pathlib.Path(target).rglob("*"), pathlib.Path(target)]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    seconds, after = time.perf_counter() - start, os.times()
    return {"seconds": seconds, "cpu_seconds": sum(after[:4]) - sum(before[:4]), "bytes": size_of(target)}
