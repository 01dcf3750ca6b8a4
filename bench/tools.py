"""Runs common load tools for some seconds, ghz for gRPC and wrk for HTTP, and reads their reports.

`make` installs them. Refused calls are counted separately, because neither tool waits after a refusal.
"""

import asyncio
import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson

from bench import calls, workload
from bench.contender import Assignment, Timing

_PATIENCE = 120.0
"""Seconds that a tool may take, several times the requested time."""
_SHORTEST = 2
"""Seconds. In a shorter run the calls in progress at its end would have too much influence."""
_MARK = "@nonce@"
"""The placeholder that makes a request's keys unique. wrk's script replaces it by a text that no other request has."""
_HERE = Path(__file__).parent


class Tool:
    """A tool that sends with an API key, and its next load and time."""

    def __init__(self, name: str, key: str):
        found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if found is None:
            raise FileNotFoundError(f"{name} is not installed: run `make bench-tools`")
        self._program, self._key = found, key

    async def prepare(self, assignment: Assignment, seconds: float) -> None:
        """Set the load, and the time to send it."""
        self._load, self._seconds = assignment.load, f"{max(_SHORTEST, round(seconds))}s"

    async def _run(self, *commands: Sequence[str]) -> tuple[list[str], float]:
        """Run these commands at the same time. Return the output of each, and the CPU seconds of all."""
        # This counts all children of this process that ended in this time. The other parts do not end during a run.
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        outputs = await asyncio.gather(*(asyncio.to_thread(self._output, command) for command in commands))
        return outputs, sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before

    def _output(self, command: Sequence[str]) -> str:
        command, env = [self._program, *command], {**os.environ, "HEADGATE_KEY": self._key}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        if done.returncode:
            raise RuntimeError(f"{self._program} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout


class Ghz(Tool):
    """ghz against server processes that share a store: one ghz for each, on its own connection.

    Its configurations are in `bench/ghz/`, and can be run separately (`tests/support/ghzfiles.py`).
    """

    def __init__(self, ports: Sequence[int], key: str):
        super().__init__("ghz", key)
        self._ports = ports

    async def go(self) -> Timing:
        """Send. Raises `RuntimeError` if a call fails."""
        file, callers = _HERE / "ghz" / f"batch-{self._load.batch}.json", self._load.callers
        shares = [(port, len(range(number, callers, len(self._ports)))) for number, port in enumerate(self._ports)]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as metadata:
            # The key is not an argument, because other users could read it.
            json.dump({"x-api-key": self._key}, metadata)
            metadata.flush()
            # Calls in progress at the end of the time are waited for and counted.
            common = ["--config", str(file), "--metadata-file", metadata.name, "--format", "json"]
            common += ["--duration", self._seconds, "--duration-stop", "wait"]
            each = ([*common, "--concurrency", str(share), f"127.0.0.1:{port}"] for port, share in shares if share)
            outputs, cpu_seconds = await self._run(*each)
        reports = list(map(json.loads, outputs))
        codes = sum((Counter(report["statusCodeDistribution"]) for report in reports), Counter[str]())
        if not set(codes) <= {"OK", "ResourceExhausted"}:
            raise RuntimeError(f"ghz: {codes} {[report.get('errorDistribution') for report in reports]}")
        said = [one for report in reports for one in report["latencyDistribution"]]
        p50, p99 = (max(one["latency"] for one in said if one["percentage"] == share) / 1e6 for share in (50, 99))
        events, refused = codes["OK"] * self._load.batch, codes["ResourceExhausted"]
        seconds = max(report["total"] for report in reports) / 1e9
        return Timing(events, 0, refused, p50, p99, seconds, cpu_seconds)


class Wrk(Tool):
    """wrk for one address, `http://127.0.0.1:8080/v1/events/batch`: batches of new events from one prepared body."""

    def __init__(self, address: str, key: str):
        super().__init__("wrk", key)
        self._address = address

    async def go(self) -> Timing:
        """Send. Calls in progress at the end of the time are stored but not counted.

        Raises `RuntimeError` if a call fails, or does not store every event. Raises `TimeoutError` if there are more
        callers than answers: then the time was too short for a measurement.
        """
        events = [orjson.dumps(workload.order(number, _MARK)) for number in range(self._load.batch)]
        with tempfile.NamedTemporaryFile("wb", suffix=".json") as body:
            body.write(calls.JSON_BATCH.request(events))
            body.flush()
            # One thread can send many times more than is answered. A second one would only take the server's CPU time.
            command = ["--threads", "1", "--connections", str(self._load.callers), "--timeout", "30s"]
            command += ["--duration", self._seconds, "--script", str(_HERE / "wrk.lua"), self._address, "--"]
            command += [body.name, _MARK, secrets.token_hex(6), str(self._load.batch)]
            (output,), cpu_seconds = await self._run(command)
        report = json.loads(output.splitlines()[-1])
        answered, failed = report.pop("calls") - report["refused"], report.pop("failed")
        if failed:
            raise RuntimeError(f"wrk to {self._address}: {failed} calls failed, {answered} were answered")
        if answered + report["refused"] < self._load.callers:
            raise TimeoutError(f"wrk to {self._address}: {answered} calls were answered in {self._seconds}")
        return Timing(events=answered * self._load.batch, cpu_seconds=cpu_seconds, **report)
