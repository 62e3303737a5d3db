"""One side of a benchmark: a program that trains on demand, spoken to over its stdin and stdout."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PEER = HERE / "open_clip_peer.py"
# A side that says nothing for so long hangs: no step and no compilation takes that time.
SILENCE_S = 900
TICKS = os.sysconf("SC_CLK_TCK")


class SideError(Exception):
    """A side ended, hung or said what makes no sense. Its text is one line."""


class Side:
    """A running side. `losses` holds one entry per step done so far."""

    def __init__(self, name, program, options, threads, log, env=()):
        interpreter = [sys.executable] if str(program).endswith(".py") else []
        self.name, self.log, self.losses, self.scales = name, pathlib.Path(log), [], []
        # Threads of OpenMP that wait spin for a moment and then sleep, unless told otherwise: left so
        # for both sides, since sleeping at once would slow the side that computes.
        # `idle_share` sees whether the waiting side really sleeps.
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **dict(env)}
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [*interpreter, str(program), "bench", *map(str, options)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment,
            )
        try:
            self.ready = self._line()
            if not self.ready.get("ready"):
                raise SideError(f"{name} said {self.ready} where it should say that it is ready")
        except SideError:
            self.process.kill()
            raise

    def _fail(self, why):
        tail = self.log.read_text().strip().splitlines()[-1:]
        raise SideError(f"{self.name} {why}" + (f": {tail[0]}" if tail else ""))

    def _line(self):
        watchdog = threading.Timer(SILENCE_S, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            self._fail(f"ended with status {self.process.wait()}")
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            self._fail(f"said {line.strip()!r}, which is no JSON object")
        return found

    def train(self, steps):
        """Trains `steps` steps; returns their last line, with `wallSeconds` as seen from here."""
        start = time.perf_counter()
        try:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        except OSError:
            self._fail("no longer listens")
        for _ in range(steps):
            line = self._line()
            if line.get("step") != len(self.losses):
                self._fail(f"said {line} where step {len(self.losses)} was due")
            self.losses.append(line["loss"])
            self.scales.append(line["logitScale"])
        done = self._line()
        if done.get("done") != steps:
            self._fail(f"said {done} where it should say that {steps} steps are done")
        return {**done, "wallSeconds": time.perf_counter() - start}

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def close(self):
        with contextlib.suppress(OSError):  # it may be gone
            self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
