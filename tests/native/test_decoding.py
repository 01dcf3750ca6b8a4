"""The compiled core decodes what the Python code decodes: ordinary, odd, damaged and poisoned inputs."""

import json
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.v1.event_pb2 import Event
from headgate_server.core import timestamps
from headgate_server.core.model import (
    Draft,
    Problem,
)
from tests.native import twins
from tests.native.found import FOUND, Found
from tests.native.fuzz import Fuzzer
from tests.native.shapes import SHAPES, as_json, as_message
from tests.support import poison
from tests.support.vendors import VENDORS
from tests.unit import jsontexts
from tests.unit.test_decode import _EVENTS, event_of

pytestmark = twins.needs_core


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_real_shapes(shape: Any) -> None:
    events = [as_message(shape), as_message(shape, source="other")]
    messages = twins.slots_of(twins.decoded_events(events))
    texts = twins.slots_of(twins.decoded_body(b"[%s,%s]" % (as_json(shape), as_json(shape, source="other"))))
    assert all(isinstance(slot, Draft) for slot in (*messages, *texts))
    twins.settled([messages, texts, messages], messages[:1])


def test_the_share_of_real_shapes_that_the_core_takes() -> None:
    """docs/design/native.md says these figures."""
    _, left = twins.core().decode_events([as_message(shape) for shape in SHAPES], [bytes(16)] * len(SHAPES))
    assert [SHAPES[at].name for at in left] == ["a time of nanoseconds"]
    _, left = twins.core().decode_texts([as_json(shape) for shape in SHAPES], [bytes(16)] * len(SHAPES))
    assert [SHAPES[at].name for at in left] == ["a time of nanoseconds", "a field that is not known"]


@given(st.lists(_EVENTS, min_size=1, max_size=3))
def test_valid_events(events: list[dict[str, Any]]) -> None:
    texts = [json.dumps(event).encode() for event in events]
    of_json = twins.slots_of(twins.decoded_body(b'{"events": [%s]}' % b" , ".join(texts)))
    messages = [event_of(event).SerializeToString() for event in events]
    of_proto = twins.slots_of(twins.decoded_events(messages))
    assert len(of_json) == len(of_proto) == len(events)
    twins.settled([of_json, of_proto], of_json[:1])


@given(st.lists(jsontexts.VALUES | jsontexts.OBJECTS, max_size=3), st.sampled_from(["[%s]", '{"events":[%s]}', "%s"]))
def test_any_json(values: list[str], frame: str) -> None:
    twins.decoded_body((frame % ",".join(values)).encode())


@given(jsontexts.OBJECTS)
def test_any_payload(payload: str) -> None:
    text = payload.encode()
    twins.decoded_body(b'[{"data":%s,"type":"t"}]' % text)
    twins.decoded_events([Event(type="t", data_json=text).SerializeToString()])


@given(st.floats())
def test_any_double(value: float) -> None:
    event = Event(type="t")
    event.data["n"] = value
    twins.decoded_events([event.SerializeToString()])


@given(st.integers(timestamps.MIN - 10**12, timestamps.MAX + 10**12), st.integers(0, 999), st.data())
def test_any_time(microseconds: int, finer: int, data: st.DataObject) -> None:
    event = Event(type="t")
    event.occurred_at.seconds, rest = divmod(microseconds, 1_000_000)
    event.occurred_at.nanos = rest * 1_000 + finer
    twins.decoded_events([event.SerializeToString()])
    moment = timestamps.format(min(max(microseconds, timestamps.MIN), timestamps.MAX))
    at = data.draw(st.integers(0, len(moment)))
    damaged = (
        moment[:at] + data.draw(st.sampled_from(["", "0", "9", ".", ":", "-", "+05:30", "z", "60", "é"])) + moment[at:]
    )
    offset = data.draw(st.sampled_from(["Z", "+00:00", "-23:59", "+24:00", ""]))
    for text in (moment, moment[:-1] + offset, damaged, damaged[1:]):
        twins.decoded_body(json.dumps([{"type": "t", "occurred_at": text}]).encode())


@given(st.sampled_from(SHAPES), st.data())
def test_damaged_events(shape: Any, data: st.DataObject) -> None:
    for text, decoded in ((as_message(shape), twins.decoded_events), (as_json(shape), None)):
        at = data.draw(st.integers(0, len(text) - 1))
        damage = data.draw(st.binary(max_size=3))
        damaged = text[:at] + damage + text[at + data.draw(st.integers(0, 3)) :]
        if decoded is not None:
            decoded([damaged, text])
        else:
            twins.decoded_body(b"[%s,%s]" % (damaged, text))
            twins.decoded_body(damaged + b"\n" + text)


@pytest.mark.parametrize("levels", [28, 29, 30, 31, 32])
def test_lists_of_many_levels_in_a_struct(levels: int) -> None:
    value = b""
    for _ in range(levels):
        value = poison.field(6, poison.field(1, value))
    member = poison.field(1, b"a") + poison.field(2, value)
    twins.decoded_events([poison.field(1, b"t") + poison.field(5, poison.field(1, member))])


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.what)
def test_what_fuzzing_found(found: Found) -> None:
    twins.compare(found)


def test_random_inputs() -> None:
    """A second of what `make fuzz` does for an hour. Every kind of input is drawn, and the core takes a good part."""
    with closing(Fuzzer(seed=14)) as fuzzer:
        for _ in range(300):
            fuzzer.step()
    counts = fuzzer.counts
    assert min(counts[kind] for kind in ("messages", "bodies", "vendors", "cloudevents", "settled", "problems")) > 20
    assert {kind for kind in counts if kind.startswith("of ")} == {f"of {name}" for name in VENDORS}
    assert counts["taken"] > counts["messages"] / 4 > 50
    assert counts["copied"] > counts["copied by the core"] > 20


@pytest.mark.parametrize("name", poison.PROTO_REJECTED)
def test_poisoned_messages(name: str) -> None:
    poisoned, _ = poison.PROTO_REJECTED[name]
    serialized = poisoned if isinstance(poisoned, bytes) else poisoned.SerializeToString()
    good = as_message(SHAPES[0])
    before, slot, after = twins.slots_of(twins.decoded_events([good, serialized, good]))
    assert isinstance(before, Draft)
    assert isinstance(slot, Problem)
    assert isinstance(after, Draft)


@pytest.mark.parametrize("name", poison.JSON)
def test_poisoned_json(name: str) -> None:
    text, rejection = poison.JSON[name]
    before, slot, after = twins.slots_of(twins.decoded_body(b'{"events":[{"type":"a"},%s,{"type":"z"}]}' % text))
    assert isinstance(before, Draft)
    assert isinstance(slot, Draft) is (rejection is None)
    assert isinstance(after, Draft)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"events":[]}', b'{"events":{}}', b'{"events":[{"type":"t"}],"atomic":"yes"}',
        b'{"events":[{"type":"t"}],"events":[]}',
        b'{"events":[{"type":"t"}],"validate_only":true,"validateOnly":false}',
        b'{"event\\u0073":[{"type":"t"}]}', b'[{"type":"t"}]x', b'\xef\xbb\xbf[{"type":"t"}]', b'[{"type":"\xff"}]',
        b'{"atomic":true,"events":[{"type":"t"},{"type":"t"}]}', b"[" * 10_000, b'[{"type":"t"},' * 3, b"[1,2,3,4]",
        b'{"events":[{"type":"t"}],"colour":1}', b'{"type":"t"}', b"null", b'{"events":null}',
    ],
)  # fmt: skip
def test_bodies(body: bytes) -> None:
    twins.decoded_body(body, 3)
