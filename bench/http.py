"""Load over HTTP with wrk: batches of fresh events to the product's REST, through Envoy, or to any service that takes
the same JSON.
"""

import json
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import tool, workload
from bench.lockstep import Timing

_MARK = "@nonce@"
"""Stands for what makes a request's keys its own; the script replaces it by a text that no other request has."""
_SCRIPT = Path(__file__).with_name("wrk.lua")


class Wrk:
    """wrk with batches of one size, for one address: `http://127.0.0.1:8080/v1/events/batch`."""

    least_seconds = 2
    """In less than this, what is under way when time is up would weigh too much."""

    def __init__(self, program: str, address: str, key: str, batch: int):
        self._program = program
        self._address = address
        self._key = key
        self._batch = batch

    async def go(self, callers: int, seconds: int) -> Timing:
        """Send for so many seconds, over as many connections as there are callers.

        Calls that were under way when time was up are stored and not counted; those that were refused for want of room
        are counted apart: wrk does not know how to wait. Raises `RuntimeError` if a call fails otherwise.
        """
        with tempfile.NamedTemporaryFile("wb", suffix=".json") as body:
            body.write(self._body())
            body.flush()
            command = self._command(body.name, callers, seconds)
            ran = await tool.run([command], {"HEADGATE_KEY": self._key})
        said = json.loads(ran.outputs[0].splitlines()[-1])
        if said["failed"] or not said["calls"]:
            raise RuntimeError(f"wrk to {self._address}: {said['failed']} calls failed, {said['calls']} were answered")
        return Timing(
            events=(said["calls"] - said["refused"]) * self._batch,
            seconds=said["seconds"],
            cpu_seconds=ran.cpu_seconds,
            p50=said["p50"],
            p99=said["p99"],
            refused=said["refused"],
        )

    def _command(self, body: str, callers: int, seconds: int) -> Sequence[str]:
        return [
            self._program,
            # One thread: it sends many times what is answered here, and a second would only take the server's turn.
            *("--threads", "1", "--connections", str(callers), "--duration", f"{seconds}s", "--timeout", "30s"),
            *("--script", str(_SCRIPT), self._address, "--", body, _MARK, secrets.token_hex(6)),
        ]

    def _body(self) -> bytes:
        events = (workload.json(workload.Order(number, _MARK)) for number in range(self._batch))
        return b'{"events":[%b]}' % b",".join(events)
