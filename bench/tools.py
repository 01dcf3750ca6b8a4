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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import orjson

from bench import calls, workload
from bench.contender import Assignment, Timing
from bench.suite import Load

_PATIENCE = 120.0
"""Seconds that a tool may take, several times the requested time."""
_SHORTEST = 2
"""Seconds. In a shorter run the calls in progress at its end would have too much influence."""
_MARK = "@nonce@"
"""The placeholder that makes a request's keys unique. wrk's script replaces it by a text that no other request has."""
_HERE = Path(__file__).parent


class Tool:
    """A tool with its next load and time. Each target has a process of the tool and an equal share of the callers."""

    name: ClassVar[str]

    def __init__(self, targets: Sequence[str], key: str):
        found = shutil.which(self.name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if found is None:
            raise FileNotFoundError(f"{self.name} is not installed: run `make bench-tools`")
        self._program, self._targets, self._key = found, targets, key

    async def prepare(self, assignment: Assignment, seconds: float) -> None:
        """Set the load, and the time to send it."""
        self._load, self._seconds = assignment.load, f"{max(_SHORTEST, round(seconds))}s"

    async def _run(self, command: Callable[[str, int], Sequence[str]]) -> tuple[list[str], float]:
        """Run a command for each target and its callers at the same time. Return the outputs, and all CPU seconds."""
        # This counts all children of this process that ended in this time. The other parts do not end during a run.
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        callers, of = self._load.callers, len(self._targets)
        shares = [(target, len(range(number, callers, of))) for number, target in enumerate(self._targets)]
        commands = [command(target, share) for target, share in shares if share]
        outputs = await asyncio.gather(*(asyncio.to_thread(self._output, each) for each in commands))
        return outputs, sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before

    def _output(self, command: Sequence[str]) -> str:
        command, env = [self._program, *command], {**os.environ, "HEADGATE_KEY": self._key}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        if done.returncode:
            raise RuntimeError(f"{self._program} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout


class Ghz(Tool):
    """ghz against addresses. Its configurations are in `bench/ghz/`, made by `tests/support/ghzfiles.py`."""

    name = "ghz"

    async def go(self) -> Timing:
        """Send. Raises `RuntimeError` if a call fails."""
        file = _HERE / "ghz" / f"batch-{self._load.batch}.json"
        with tempfile.NamedTemporaryFile("w", suffix=".json") as metadata:
            # The key is not an argument, because other users could read it.
            json.dump({"x-api-key": self._key}, metadata)
            metadata.flush()
            # Calls in progress at the end of the time are waited for and counted.
            common = ["--config", str(file), "--metadata-file", metadata.name, "--format", "json"]
            common += ["--duration", self._seconds, "--duration-stop", "wait"]
            outputs, cpu_seconds = await self._run(lambda port, share: [*common, "--concurrency", str(share), port])
        reports = list(map(json.loads, outputs))
        codes = sum((Counter(report["statusCodeDistribution"]) for report in reports), Counter[str]())
        if not set(codes) <= {"OK", "ResourceExhausted"}:
            raise RuntimeError(f"ghz: {codes} {[report.get('errorDistribution') for report in reports]}")
        said = [one for report in reports for one in report["latencyDistribution"]]
        p50, p99 = (max(one["latency"] for one in said if one["percentage"] == share) / 1e6 for share in (50, 99))
        events, seconds = codes["OK"] * self._load.batch, max(report["total"] for report in reports) / 1e9
        return Timing(events, 0, codes["ResourceExhausted"], p50, p99, seconds, cpu_seconds)


class Wrk(Tool):
    """wrk for addresses such as `http://127.0.0.1:8080/v1/events/batch`: new events from one prepared body."""

    name = "wrk"

    async def go(self) -> Timing:
        """Send. Raises what `timing` raises."""
        events = [orjson.dumps(workload.order(number, _MARK)) for number in range(self._load.batch)]
        with tempfile.NamedTemporaryFile("wb", suffix=".json") as body:
            body.write(calls.JSON_BATCH.request(events))
            body.flush()
            # One thread can send many times more than is answered. A second one would only take the server's CPU time.
            common = ["--threads", "1", "--timeout", "30s", "--duration", self._seconds, "--connections"]

            def command(to: str, share: int) -> Sequence[str]:
                arguments = [body.name, _MARK, secrets.token_hex(6), str(self._load.batch)]
                return [*common, str(share), "--script", str(_HERE / "wrk.lua"), to, "--", *arguments]

            outputs, cpu_seconds = await self._run(command)
        return timing(self._load, [json.loads(output.splitlines()[-1]) for output in outputs], cpu_seconds)


def timing(load: Load, reports: Sequence[Mapping[str, float]], cpu_seconds: float) -> Timing:
    """Return the result of a load from what `wrk.lua` reports for each target. The end cuts off half a call of each
    caller, on average, so half of the median latency is taken off the time.

    Raises `RuntimeError` if a call failed or did not store every event, `TimeoutError` if there are few answers.
    """
    made, failed, refused = (round(sum(one[name] for one in reports)) for name in ("calls", "failed", "refused"))
    p50, p99, seconds = (max(one[name] for one in reports) for name in ("p50", "p99", "seconds"))
    if failed:
        raise RuntimeError(f"wrk: {failed} calls failed, {made - refused} were answered")
    if made < load.callers:
        raise TimeoutError(f"wrk: {made} answers to {load.callers} callers in {seconds} s: too few to measure")
    return Timing((made - refused) * load.batch, 0, refused, p50, p99, seconds - p50 / 2000, cpu_seconds)
