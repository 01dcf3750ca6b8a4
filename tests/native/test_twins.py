"""The compiled core returns what the Python code returns, for ordinary, odd and damaged inputs."""

import functools
import json
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate.v1.event_pb2 import Event
from headgate_server.core import compiled, ledger, timestamps
from headgate_server.core.model import (
    Draft,
    Mismatch,
    Outcome,
    Problem,
    Settled,
    Status,
    StoredEvent,
    Submission,
    Usage,
)
from headgate_server.core.reasons import Reason
from headgate_server.core.settle import Settlement
from headgate_server.rpc import decode
from tests.native import twins
from tests.native.found import FOUND, Found
from tests.native.fuzz import Fuzzer
from tests.native.shapes import SHAPES, as_json, as_message
from tests.support import poison
from tests.support.drafts import BAD, draft
from tests.unit import jsontexts
from tests.unit import test_compiled as failing
from tests.unit import test_specification as independent
from tests.unit.test_decode import _EVENTS, event_of
from tests.unit.test_wire import OUTCOMES

pytestmark = twins.needs_core

CANONICAL, LEDGER = independent.CANONICAL, independent.LEDGER


def core() -> Any:
    return twins.FOUND.core


# What the golden vectors say.


def _canonical(payload: bytes) -> bytes | None:
    """Return the canonical form of a payload by the compiled core alone; None if it leaves the event to Python."""
    event = Event(type="t", data_json=payload).SerializeToString()
    slots, left = core().decode_events([event], [bytes(16)])
    return None if left else slots[0].data


@pytest.mark.parametrize("vector", CANONICAL["values"], ids=lambda vector: vector["name"])
def test_golden_values(vector: dict[str, str]) -> None:
    wrapped = _canonical(b'{"a":%s}' % vector["json"].encode())
    assert wrapped == b'{"a":%s}' % bytes.fromhex(vector["canonical_hex"])


@pytest.mark.parametrize("vector", CANONICAL["numbers"], ids=lambda vector: vector["json"][:30])
def test_golden_numbers(vector: dict[str, str]) -> None:
    wrapped = _canonical(b'{"a":%s}' % vector["json"].encode())
    if wrapped is None:
        assert len(vector["json"].lower().partition("e")[2].lstrip("+-0")) > 4  # a long exponent is left to Python
    else:
        assert wrapped.decode() == f'{{"a":{vector["canonical"]}}}'


@pytest.mark.parametrize("vector", CANONICAL["doubles"], ids=lambda vector: vector["ieee754_hex"])
def test_golden_doubles(vector: dict[str, str]) -> None:
    event = Event(type="t")
    event.data["a"] = struct.unpack(">d", bytes.fromhex(vector["ieee754_hex"]))[0]
    slots, left = core().decode_events([event.SerializeToString()], [bytes(16)])
    assert (left, slots[0].data.decode()) == ([], f'{{"a":{vector["canonical"]}}}')


@pytest.mark.parametrize("vector", CANONICAL["rejected"], ids=lambda vector: vector["name"])
def test_what_has_no_canonical_form_is_left_to_python(vector: dict[str, Any]) -> None:
    levels = vector.get("levels", 0)
    text = vector.get("json") or '{"a":' * levels + "1" + "}" * levels
    assert _canonical(text.encode()) is None


@pytest.mark.parametrize("vector", CANONICAL["contents"], ids=lambda vector: vector["name"])
def test_golden_contents(vector: dict[str, Any]) -> None:
    if vector.get("attributes_json") is not None:
        pytest.skip("no event of our own API has attributes")
    event = Event(type=vector["type"], source=vector["source"], subject=vector["subject"])
    if vector["occurred_at_us"] is not None:
        event.occurred_at.seconds, rest = divmod(vector["occurred_at_us"], 1_000_000)
        event.occurred_at.nanos = rest * 1_000
    if vector["data_json"] is not None:
        event.data_json = vector["data_json"].encode()
    slots, left = core().decode_events([event.SerializeToString()], [bytes(16)])
    if left:
        assert not vector["data_json"].startswith("{")  # our own API takes only objects
    else:
        assert slots[0].canonical.hex() == vector["canonical_hex"]
        assert slots[0].commitment == sha256(bytes(16) + slots[0].canonical).digest()


@pytest.mark.parametrize("vector", LEDGER["identities"], ids=lambda vector: f"{vector['scope']}-{vector['key']}")
def test_golden_identities(vector: dict[str, str]) -> None:
    if vector["receiver"] != "native":
        pytest.skip("only our own API's events are decoded by the core")
    event = Event(type="t", source=vector["scope"], idempotency_key=vector["key"])
    slots, left = core().decode_events([event.SerializeToString()], [bytes(16)])
    assert (left, slots[0].identity.hex(), slots[0].dedupe.hex()) == ([], vector["sha256"], vector["dedupe"])


def test_the_golden_chain() -> None:
    """The compiled core links the vectors' events to the vectors' hashes."""
    chain = LEDGER["chain"]
    head = ledger.genesis(chain["workspace"])
    previous, clock = head.hash, 0
    for event in chain["events"]:
        named = b"" if event["key"] is None else ledger.identity(event["receiver"], event["scope"], event["key"])
        sealed = draft(event["key"], None, type=event["type"], receiver=event["receiver"])._replace(
            identity=named, commitment=bytes.fromhex(event["commitment"]), dedupe=None
        )
        clock = event["created_at"]
        random = bytes.fromhex(event["id"])[8:]
        _, rows, previous = core().decide_run([sealed], 0, random, {}, 1, event["sequence"] - 1, previous, clock, 1)
        assert (rows[0].id.hex(), rows[0].event_hash.hex()) == (event["id"], event["event_hash"])
        assert previous.hex() == event["event_hash"]


# Decoding.


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_real_shapes(shape: Any) -> None:
    events = [as_message(shape), as_message(shape, source="other")]
    messages = twins.slots_of(twins.decoded_events(events))
    texts = twins.slots_of(twins.decoded_body(b"[%s,%s]" % (as_json(shape), as_json(shape, source="other"))))
    assert all(isinstance(slot, Draft) for slot in (*messages, *texts))
    twins.settled([messages, texts, messages], messages[:1])


def test_the_share_of_real_shapes_that_the_core_takes() -> None:
    """docs/design/native.md says these figures."""
    _, left = core().decode_events([as_message(shape) for shape in SHAPES], [bytes(16)] * len(SHAPES))
    assert [SHAPES[at].name for at in left] == ["a time of nanoseconds"]
    _, left = core().decode_texts([as_json(shape) for shape in SHAPES], [bytes(16)] * len(SHAPES))
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
    fuzzer = Fuzzer(seed=14)
    for _ in range(300):
        fuzzer.step()
    counts = fuzzer.counts
    assert min(counts[kind] for kind in ("messages", "bodies", "vendors", "cloudevents", "settled", "problems")) > 20
    assert counts["taken"] > counts["messages"] / 4 > 50


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


# Deciding.

_KEYS = st.sampled_from([None, "a", "b", "c"])
_DRAFTS = st.builds(
    draft,
    _KEYS,
    st.fixed_dictionaries({"n": st.integers(0, 1)}),
    receiver=st.sampled_from(["native", "cloudevents", "roboflow"]),
    occurred_at=st.sampled_from([None, 0, 5]),
    on_mismatch=st.sampled_from(Mismatch),
    attributes=st.sampled_from([None, b'{"a":1}']),
)
_REFUSED = Problem(Reason.SCHEMA_MISMATCH, "data", "It does not match.")
_SLOTS = st.lists(
    st.one_of(
        st.just(BAD),
        _DRAFTS,
        _DRAFTS.map(lambda one: one._replace(warnings=("w",))),
        _DRAFTS.map(lambda one: one._replace(refused=_REFUSED)),
    ),
    max_size=8,
)
_NEW_YEAR = timestamps.parse("2027-01-01T00:00:00Z")[0]


@given(
    st.lists(_SLOTS, max_size=4),
    _SLOTS,
    st.none() | st.integers(0, 6),
    st.booleans(),
    st.integers(_NEW_YEAR - 4, _NEW_YEAR),
)
def test_whatever_is_decided(
    groups: list[list[Draft | Problem]], earlier: list[Draft | Problem], quota: int | None, atomic: bool, now: int
) -> None:
    """New events, duplicates, conflicts, replacements, refused events, quotas, and the end of a month."""
    twins.settled(groups, earlier, quota=quota, atomic=atomic, now=now)


@given(st.lists(st.tuples(st.booleans(), _SLOTS), max_size=6))
def test_a_ledger_that_both_have_written_verifies(turns: list[tuple[bool, list[Draft | Problem]]]) -> None:
    """By the verifier that was written from the specification alone."""
    settlement = Settlement(1, ledger.genesis("acme"), {}, {}, twins.NOW, Usage(None, 0, 0))
    for is_compiled, slots in turns:
        with compiled.using(core() if is_compiled else None):
            assert isinstance(settlement.decide(Submission(workspace_id=1, slots=slots)), Settled)
    assert settlement.head.hash == independent.verified("acme", settlement.rows)


def test_a_run_that_fails_changes_nothing() -> None:
    """Otherwise Python, which decides the slots again, would take its own new events for duplicates."""
    known: dict[Any, Any] = {}
    slots = [draft("a"), draft("b")._replace(commitment=b"short")]
    with pytest.raises(TypeError):
        core().decide_run(slots, 0, bytes(16), known, 1, 0, bytes(32), twins.NOW, 10)
    assert known == {}


# Answers.


@given(st.lists(OUTCOMES, max_size=4), st.booleans())
def test_any_answer(outcomes: list[Outcome], numbered: bool) -> None:
    twins.answered(outcomes, [*range(1, 2 * len(outcomes), 2)] if numbered else [])


@pytest.mark.parametrize("text", ["\0", '\x1f\x7f\u2028"\\é👍'])
def test_answers_with_odd_texts(text: str) -> None:
    problem = Problem(Reason.TOO_LONG, text, text, differing_fields=(text,))
    twins.answered([Outcome(Status.REJECTED, None, problem, (text,))])


def test_a_lone_surrogate_is_left_to_python() -> None:
    """It has no UTF-8."""
    outcomes = [Outcome(Status.REJECTED, None, Problem(Reason.TOO_LONG, "\ud800", ""))]
    assert core().batch_message(outcomes, ()) is core().batch_json(outcomes, ()) is None
    assert core().stream_results(outcomes) is None


# Rows.

_NO_LINK = ledger.genesis("acme")


def _copied(rows: list[StoredEvent]) -> bytes:
    """Return rows in the binary format of COPY, as PostgreSQL documents it."""
    stream = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
    for row in rows:
        stream += struct.pack("!h", len(row))
        for value in row:
            encoded: Any = value.encode() if isinstance(value, str) else value
            encoded = struct.pack("!q", encoded) if isinstance(encoded, int) else encoded
            stream += struct.pack("!i", -1) if encoded is None else struct.pack("!i", len(encoded)) + encoded
    return stream + struct.pack("!h", -1)


@given(_SLOTS)
def test_rows_are_as_postgresql_documents_them(slots: list[Draft | Problem]) -> None:
    settlement = Settlement(1, _NO_LINK, {}, {}, twins.NOW)
    settlement.decide(Submission(workspace_id=1, slots=slots))
    assert core().copy_rows(settlement.rows) == [_copied(settlement.rows)]


def test_many_rows_are_copied_in_pieces() -> None:
    settlement = Settlement(1, _NO_LINK, {}, {}, twins.NOW)
    settlement.decide(Submission(workspace_id=1, slots=[draft(data={"text": "é" * 1_000})] * 1_000))
    pieces = core().copy_rows(settlement.rows)
    assert len(pieces) > 3
    assert all(len(piece) < 600_000 for piece in pieces)
    assert b"".join(pieces) == _copied(settlement.rows)


@pytest.mark.parametrize("value", ["\ud800", 1 << 63])
def test_what_no_column_can_hold_is_left_to_the_driver(value: Any) -> None:
    """Its error says that the value is refused."""
    assert core().copy_rows([(1, value)]) is None


# Panics. PyO3 turns an error of this class, raised by Python within a call, into a panic of Rust at that place.


class _Panics(list[Any]):
    """A list that panics once, when its element `at` is read."""

    def __init__(self, values: Iterable[Any], kind: type[BaseException], at: int = 0):
        super().__init__(values)
        self._kind = kind
        self._at = at
        self.panicked = False

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: Any) -> Any:
        if not self.panicked and index == self._at:
            self.panicked = True
            raise self._kind("a part of an event")
        return super().__getitem__(index)


@functools.cache
def _panic() -> type[BaseException]:
    """Return the class. It is made with the first error; other packages in Rust have one of their own."""
    with pytest.raises(TypeError):
        core().decode_events([1], [bytes(16)])
    for kind in BaseException.__subclasses__():
        if kind.__name__ == "PanicException":
            try:
                core().decode_events(_Panics([b""], kind), [bytes(16)])
            except RuntimeError:
                return kind
            except BaseException as error:
                assert type(error) is kind  # noqa: PT017 - of another package: it passes through
    raise LookupError("no class becomes a panic")


class _Panicking:
    """The real core. Each call of its functions panics, where it reads the value `at` of a list."""

    def __init__(self, at: int = 0):
        self._at = at

    def __getattr__(self, name: str) -> Any:
        def panicking(first: Any, *rest: Any) -> Any:
            if name == "decode_body":
                return core().decode_body(first, rest[0], lambda count: _Panics([[]], _panic())[0])
            return getattr(core(), name)(_Panics(first, _panic(), self._at), *rest)

        return panicking


def test_after_a_panic_python_does_the_work(capfd: pytest.CaptureFixture[str]) -> None:
    """In each function of the core."""
    _panic()
    capfd.readouterr()
    noted = failing.all_work_with(_Panicking())
    assert {(type(error), str(error).partition(";")[0]) for error in noted} == {(RuntimeError, _PANICKED)}
    assert capfd.readouterr().err.count("resuming a panic") == len(noted)


@settings(max_examples=20)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), st.data())
def test_a_panic_among_the_slots_of_a_run_changes_nothing(keys: list[str], data: st.DataObject) -> None:
    """Python decides all of them again, and takes none of them for its own duplicate."""
    slots = [draft(key) for key in keys]
    before, decided = compiled.failures, []
    for which in (_Panicking(data.draw(st.integers(0, len(slots) - 1))), None):
        settlement = Settlement(1, ledger.genesis("acme"), {}, {}, twins.NOW)
        with compiled.using(which), twins.fixed_randomness():
            decided.append((settlement.decide(Submission(workspace_id=1, slots=slots)), settlement.rows))
    assert decided[0] == decided[1]
    assert compiled.failures - before == 1


def test_a_panic_tells_its_place_and_nothing_of_an_event(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match=_PANICKED):
        core().panic()
    assert re.fullmatch(r"headgate_native: panic at src/python/mod\.rs:\d+:\d+\n", capfd.readouterr().err)


_PANICKED = "headgate_native panicked"


# The module itself.


@pytest.mark.parametrize(
    "wrong",
    [
        lambda core: core.decode_events([1], [bytes(16)]),
        lambda core: core.decode_events([b""], []),
        lambda core: core.decode_texts(["{}"], [bytes(16)]),
        lambda core: core.decode_body(b'[{"type":"t"}]', 1, lambda count: None),
        lambda core: core.decide_run([draft()], 0, b"", {}, 1, 0, bytes(32), 0, 1),
        lambda core: core.batch_message([None], ()),
        lambda core: core.copy_rows([(1.5,)]),
    ],
)
def test_wrong_values_are_exceptions(wrong: Any) -> None:
    with pytest.raises(TypeError):
        wrong(core())


def test_large_batches_are_decoded_beside_each_other() -> None:
    """Also while other threads run: the interpreter's lock is released meanwhile."""
    event = as_message(SHAPES[0])
    events = [event] * (200_000 // len(event))
    with twins.fixed_randomness(), compiled.using(core()):
        expected = decode.batch(RawBatchIngestRequest(events=events), 10_000)
    salts = [slot.salt for slot in expected.slots if isinstance(slot, Draft)]
    with ThreadPoolExecutor(4) as pool:
        for slots, left in pool.map(lambda _: core().decode_events(events, salts), range(8)):
            assert left == []
            assert slots == expected.slots


def test_objects_are_released() -> None:
    """The core keeps no reference to what it returned."""
    salt = bytes(range(16))
    before = sys.getrefcount(salt)
    for _ in range(100):
        core().decode_events([as_message(SHAPES[0])], [salt])
        core().decode_texts([as_json(SHAPES[0])], [salt])
    assert sys.getrefcount(salt) == before
