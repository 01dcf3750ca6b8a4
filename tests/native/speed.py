"""CPU time of the parts that the compiled core replaces, with it and without it: `python -m tests.native.speed`.

The two take turns, and the least time of each counts. The batches have 100 orders.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate.v1.event_pb2 import Event
from headgate_server.core import compiled, ledger
from headgate_server.core.model import Outcome, Settled, Submission
from headgate_server.core.settle import Settlement
from headgate_server.core.types import WorkspaceId
from headgate_server.rpc import decode, wire

_EVENTS = 100
_BATCHES = 20
_TURNS = 15
_NOW = 1_700_000_000_000_000


def _members(number: int) -> dict[str, Any]:
    return {
        "type": "order.completed",
        "source": "shop",
        "subject": f"user-{number % 50}",
        "idempotency_key": f"order-{number}",
        "data": {
            "amount": 49.99,
            "currency": "EUR",
            "items": [{"sku": f"A-{number}", "quantity": 2}],
            "customer": {"id": number, "name": "Ada Lovelace"},
        },
    }


def _message(members: dict[str, Any]) -> bytes:
    fields = {name: value for name, value in members.items() if name != "data"}
    return Event(**fields, data_json=json.dumps(members["data"]).encode()).SerializeToString()


def _settled(submissions: Sequence[Submission]) -> list[Sequence[Outcome]]:
    settlement = Settlement(WorkspaceId(1), ledger.genesis("bench"), {}, {}, _NOW)
    decisions = map(settlement.decide, submissions)
    return [decision.outcomes for decision in decisions if isinstance(decision, Settled)]


def _parts() -> dict[str, Callable[[], object]]:
    events = [[_members(batch * _EVENTS + index) for index in range(_EVENTS)] for batch in range(_BATCHES)]
    messages = [RawBatchIngestRequest(events=map(_message, batch)) for batch in events]
    timed = [[one | {"occurred_at": "2026-11-30T12:25:09Z"} for one in batch] for batch in events]
    texts = [json.dumps({"events": batch}).encode() for batch in timed]
    bodies = [RawBatchIngestRequest(json=HttpBody(data=text)) for text in texts]
    slots = [decode.batch(one, _EVENTS).slots for one in messages]
    submissions = [Submission(workspace_id=WorkspaceId(1), slots=one) for one in slots]
    outcomes = _settled(submissions)
    return {
        "decode serialized events": lambda: [decode.batch(one, _EVENTS) for one in messages],
        "decode a JSON body": lambda: [decode.batch(one, _EVENTS) for one in bodies],
        "settle": lambda: _settled(submissions),
        "answer as a message": lambda: [wire.batch_bytes(one) for one in outcomes],
        "answer as JSON": lambda: [wire.batch_answer(one) for one in outcomes],
    }


def _microseconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) / (_BATCHES * _EVENTS) * 1e6


def main() -> None:
    """Print a line for each part."""
    core, said, _ = compiled.find({})
    if core is None:
        sys.exit(f"nothing to compare: {said} (make native)")
    gc.disable()
    print(f"{'CPU µs an event':<26} {'compiled':>9} {'Python':>9} {'times':>6}")
    for name, work in _parts().items():
        least: dict[bool, float] = {}
        for which in (core, None) * _TURNS:
            with compiled.using(which):
                least[which is None] = min(least.get(which is None, 1e9), _microseconds(work))
        print(f"{name:<26} {least[False]:9.2f} {least[True]:9.2f} {least[True] / least[False]:6.1f}")


if __name__ == "__main__":
    main()
