"""Encodes an assignment as calls that are ready to be sent, with the answers that they must get."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import orjson

from bench import workload
from bench.contender import Assignment
from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, IngestResponse


class Call(NamedTuple):
    """One call: the number of its key, and the result that its answer must have for each event."""

    body: bytes
    workspace: int
    statuses: Sequence[str]


class Encoding(NamedTuple):
    """Writes events and calls in one encoding, and reads each event's result from an answer."""

    event: Callable[[workload.Order], bytes]
    request: Callable[[Sequence[bytes]], bytes]
    statuses: Callable[[bytes], list[str]]

    def check(self, call: Call, answer: bytes) -> int:
        """Return the number of newly stored events. Raises `RuntimeError` if the answer is wrong."""
        statuses = self.statuses(answer)
        if statuses != call.statuses:
            raise RuntimeError(f"answered with {Counter(statuses)}, and not {Counter(call.statuses)} in order")
        return statuses.count("accepted")


# The bridge's views of the requests take events that are serialized already.
SINGLE = Encoding(
    workload.protobuf,
    lambda events: RawIngestRequest(event=events[0]).SerializeToString(),
    lambda answer: [IngestResponse.FromString(answer).result.status],
)
BATCH = Encoding(
    workload.protobuf,
    lambda events: RawBatchIngestRequest(events=events).SerializeToString(),
    lambda answer: [result.status for result in BatchIngestResponse.FromString(answer).results],
)
JSON_BATCH = Encoding(
    orjson.dumps,
    lambda events: b'{"events":[%b]}' % b",".join(events),
    lambda answer: [result["status"] for result in orjson.loads(answer)["results"]],
)


class Plan(NamedTuple):
    """All calls of an assignment, and the events to store before the clock starts, which are duplicates afterwards."""

    encoding: Encoding
    originals: list[Call]
    calls: list[Call]


def plan(assignment: Assignment, encoding: Encoding) -> Plan:
    """Encode an assignment; the duplicates of each call are its first events."""
    made, (load, events, _) = Plan(encoding, [], []), assignment
    repeated = round(load.duplicates * load.batch)
    statuses = ["duplicate"] * repeated + ["accepted"] * (load.batch - repeated)
    encoded = [encoding.event(order) for order in workload.orders(events)]
    for number, start in enumerate(range(0, events, load.batch)):
        batch = encoded[start : start + load.batch]
        workspace = 0 if load.hot and number % 2 else number % load.workspaces
        made.calls.append(Call(encoding.request(batch), workspace, statuses))
        if repeated:
            made.originals.append(Call(encoding.request(batch[:repeated]), workspace, ["accepted"] * repeated))
    return made
