"""Writes the configurations of ghz in `bench/ghz/`: `python -m tests.support.ghzfiles`.

Every event is written out, because a loop in ghz's templates depends on the release of Go that built ghz. `{{.UUID}}`
is different in each call.
"""

from pathlib import Path
from typing import Any

import orjson

from bench import workload

FOLDER = Path(__file__).parents[2] / "bench" / "ghz"

BATCHES = {"single": 0, "batch-1": 1, "batch-10": 10, "batch-100": 100, "batch-1000": 1_000}
"""The configurations, each with the events of a call; 0 for calls of Ingest."""


def configuration(batch: int) -> dict[str, Any]:
    """Return ghz's configuration for batches of so many events, or for single events with 0: a run of some seconds."""
    events = [workload.order(number, "{{.UUID}}") for number in range(max(batch, 1))]
    return {
        "call": f"headgate.v1.IngestService.{'BatchIngest' if batch else 'Ingest'}",
        "host": "127.0.0.1:50051",
        "insecure": True,
        # More events at once would exceed the server's bound on waiting events of one workspace.
        "concurrency": 8 if batch >= 1_000 else 32,
        "total": max(100_000 // max(batch, 10), 500),
        "data": {"events": events} if batch else {"event": events[0]},
    }


if __name__ == "__main__":
    for name, batch in BATCHES.items():
        text = orjson.dumps(configuration(batch), option=orjson.OPT_APPEND_NEWLINE)
        # Each event on a line of its own.
        text = text.replace(b'{"events":[{', b'{"events":[\n{').replace(b'},{"type"', b'},\n{"type"')
        (FOLDER / f"{name}.json").write_bytes(text)
