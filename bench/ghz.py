"""Load with ghz, and its configurations, which lie in `bench/ghz/` for anybody to run.

`python -m bench.ghz` writes them anew from the workload. Every event is written out, since a loop in ghz's templates
depends on the release of Go that built it; `{{.UUID}}` is another one in each call.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from bench import tool, workload
from bench.lockstep import Timing

FOLDER = Path(__file__).with_name("ghz")
BATCHES = (1, 10, 100, 1_000)
_UUID = "{{.UUID}}"
_OK, _REFUSED = "OK", "ResourceExhausted"
_SERVICE = "headgate.v1.IngestService"
_HOST = "127.0.0.1:50051"


class Ghz:
    """ghz with batches of one size, against servers that share a store."""

    least_seconds = 1

    def __init__(self, program: str, ports: Sequence[int], key: str, batch: int):
        self._program = program
        self._ports = ports
        self._key = key
        self._batch = batch

    async def go(self, callers: int, seconds: int) -> Timing:
        """Call for so many seconds, the callers shared out among the servers: one ghz each, on a connection of its own.

        Calls that are refused for want of room are counted apart: ghz does not know how to wait. Raises `RuntimeError`
        if a call fails otherwise.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".json") as metadata:
            # Not an argument, which others could read.
            json.dump({"x-api-key": self._key}, metadata)
            metadata.flush()
            shares = [len(range(number, callers, len(self._ports))) for number in range(len(self._ports))]
            commands = [
                self._command(port, share, seconds, metadata.name)
                for port, share in zip(self._ports, shares, strict=True)
                if share
            ]
            ran = await tool.run(commands, {})
        reports = [json.loads(output) for output in ran.outputs]
        codes = Counter[str]()
        for report in reports:
            codes.update(report["statusCodeDistribution"])
            if not set(codes) <= {_OK, _REFUSED}:
                raise RuntimeError(f"ghz: {report['statusCodeDistribution']} {report.get('errorDistribution')}")
        return Timing(
            events=codes[_OK] * self._batch,
            refused=codes[_REFUSED],
            seconds=max(report["total"] for report in reports) / 1e9,
            cpu_seconds=ran.cpu_seconds,
            p50=max(_percentile(report, 50) for report in reports),
            p99=max(_percentile(report, 99) for report in reports),
        )

    def _command(self, port: int, callers: int, seconds: int, metadata: str) -> list[str]:
        return [
            *(self._program, "--config", str(path(self._batch))),
            *("--metadata-file", metadata, "--concurrency", str(callers), "--format", "json"),
            # What is under way when time is up is waited for and counted.
            *("--duration", f"{seconds}s", "--duration-stop", "wait", f"127.0.0.1:{port}"),
        ]


def path(batch: int) -> Path:
    """Return where the configuration of a batch size lies."""
    return FOLDER / f"batch-{batch}.json"


def configuration(batch: int) -> dict[str, Any]:
    """Return ghz's configuration for batches of so many events, or for single events with 0: a run of some seconds."""
    method = "BatchIngest" if batch else "Ingest"
    events = [orjson.loads(workload.json(workload.Order(number, _UUID))) for number in range(max(batch, 1))]
    return {
        "call": f"{_SERVICE}.{method}",
        "host": _HOST,
        "insecure": True,
        # More than so many events at once are more than the server lets wait of one workspace.
        "concurrency": 8 if batch >= 1_000 else 32,
        "total": max(100_000 // max(batch, 10), 500),
        "data": {"events": events} if batch else {"event": events[0]},
    }


def main() -> None:
    """Write the configurations."""
    FOLDER.mkdir(exist_ok=True)
    for batch in BATCHES:
        path(batch).write_bytes(_written(configuration(batch)))
    (FOLDER / "single.json").write_bytes(_written(configuration(0)))


def _written(content: dict[str, Any]) -> bytes:
    """Return the text of a configuration, each event on a line of its own."""
    text = orjson.dumps(content)
    return text.replace(b'{"events":[{', b'{"events":[\n{').replace(b'},{"type"', b'},\n{"type"') + b"\n"


def _percentile(report: dict[str, Any], percentage: int) -> float:
    """Return a percentile of the latencies, in milliseconds."""
    return next(float(one["latency"]) / 1e6 for one in report["latencyDistribution"] if one["percentage"] == percentage)


if __name__ == "__main__":
    main()
