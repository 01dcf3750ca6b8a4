"""For every request of a vendor's client, the answer, the store and the vendor's reads agree on every event."""

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count
from typing import Any

import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate_server.core import canonical, jsonbody
from headgate_server.core.audit import NOBODY
from headgate_server.core.errors import RequestKeyReused
from headgate_server.core.model import STORED, EventQuery, Mismatch, Settled, Status, StoredEvent, Submission, Workspace
from headgate_server.ingest.committer import Committer
from headgate_server.ingest.compat import Compat, Exchange
from headgate_server.reading.verify import verify
from headgate_server.receivers import HttpRequest
from headgate_server.rpc import decode
from headgate_server.store import Store
from tests.contract.vendor_cases import (
    LINKED,
    NO_EVENTS,
    POISON,
    PROGRAM,
    ROBOFLOW,
    SCRIP,
    VENDORS,
    Case,
    Fate,
    Given,
    Vendor,
    batch_of,
    cases,
    text_of,
)
from tests.support.ingesting import admit, ingest_of
from tests.support.marks import on_postgres, on_sqlite

NOW = 1_705_314_600_000_000
"""2024-01-15T10:30:00Z, the time of all requests."""


def _examples(number: int) -> settings:
    # All examples share one store: each has a workspace of its own.
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    return settings(max_examples=number, deadline=None, database=None, phases=phases, suppress_health_check=health)


def _batches(vendor: Vendor, most: int = 8) -> st.SearchStrategy[list[Case]]:
    return st.lists(cases(vendor), min_size=1, max_size=most)


class Bench:
    """The real flow over a real store; makes workspaces."""

    def __init__(self, store: Store):
        self.store = store
        self.committer = Committer(store.database)
        self.ingest = ingest_of(store, self.committer)
        self.compat = Compat(store.ledgers, store.proof, store.deliveries, store.destinations, self.ingest)
        self._numbers = count()

    async def world(self) -> "World":
        """Return an empty workspace, and a model of it."""
        return World(self, await self.store.directory.create_workspace(f"w{next(self._numbers)}"))


@pytest.fixture
async def bench(store: Store) -> AsyncIterator[Bench]:
    """Return the flow over a fresh store."""
    made = Bench(store)
    yield made
    await made.committer.close()


class World:
    """One workspace, and a model of what it must hold."""

    def __init__(self, bench: Bench, workspace: Workspace):
        self._bench = bench
        self._workspace = workspace
        self._held: dict[tuple[str, str], tuple[str, bytes]] = {}
        """By receiver and key: the content that holds it, and the id of its row."""
        self.rows: Sequence[StoredEvent] = ()
        self.texts: dict[bytes, bytes] = {}
        """The sent event of each row, by its id."""

    async def call(
        self,
        vendor: Vendor,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Exchange:
        """Make one request without a transport."""
        routes = vendor.receiver.routes()
        endpoint = routes.get((method, path)) or routes[method, path.rpartition("/")[0] + "/{id}"]
        request = HttpRequest(method, path, query or {}, body, NOW)
        return await self._bench.compat(vendor.receiver, endpoint, self._workspace, request, key, NOBODY, admit)

    async def read(self) -> Sequence[StoredEvent]:
        """Return all that the store holds of the workspace, oldest first."""
        page = await self._bench.store.ledgers.events(EventQuery(workspace_id=self._workspace.id, limit=1_000))
        assert page.resume is None
        return page.events

    async def send(self, vendor: Vendor, batch: Sequence[Case], *, key: str | None = None) -> Exchange:
        """Send a batch. Answer and store must agree with the model."""
        fates = self._fates(vendor, batch)
        exchange = await self.call(vendor, "POST", vendor.batch, batch_of(batch), key=key)
        before, self.rows = self.rows, await self.read()
        # Stored rows stay unchanged; only a replaced revision releases its identity.
        assert [row._replace(dedupe=None) for row in self.rows[: len(before)]] == [
            row._replace(dedupe=None) for row in before
        ]
        new = self.rows[len(before) :]
        assert len(new) == sum(fate in LINKED for fate in fates)
        answer = _as_read(exchange)
        assert answer == vendor.answer(self._given(vendor, batch, fates, new))
        return exchange

    def _fates(self, vendor: Vendor, batch: Sequence[Case]) -> list[Fate]:
        held = {key: content for (name, key), (content, _) in self._held.items() if name == vendor.receiver.name}
        fates = [_fate(vendor, case, held) for case in batch]
        if vendor.atomic and Fate.INVALID in fates:  # then nothing is stored, and only the invalid events are named
            return [fate if fate is Fate.INVALID else Fate.CONFLICT for fate in fates]
        return fates

    def _given(
        self, vendor: Vendor, batch: Sequence[Case], fates: Sequence[Fate], new: Sequence[StoredEvent]
    ) -> list[Given]:
        """Give each event its row: new events new rows in order, the others the rows that held their identity."""
        given_, rows, name = [], iter(new), vendor.receiver.name
        for case, fate in zip(batch, fates, strict=True):
            if fate in LINKED:
                row = next(rows)
                assert (row.receiver, row.key, row.data) == (name, case.key, _canonical(case.text))
                self.texts[row.id] = case.text
                if case.key is not None:
                    self._held[name, case.key] = (case.content, row.id)
                given_.append(Given(case, fate, row.id))
            elif fate is Fate.SAME and case.key is not None:
                given_.append(Given(case, fate, self._held[name, case.key][1]))
            else:
                given_.append(Given(case, fate))
        return given_

    async def check_sound(self) -> None:
        """Check what always holds: order, distances, the chain, and one row for each identity."""
        assert [row.sequence for row in self.rows] == [*range(1, len(self.rows) + 1)]
        assert all(one.created_at < other.created_at for one, other in zip(self.rows, self.rows[1:], strict=False))
        found = await verify(self._bench.store.proof, self._workspace, limit=10_000)
        assert (found.events_checked, found.breaks) == (len(self.rows), [])
        holders = {(row.receiver, row.key): row.id for row in self.rows if row.dedupe is not None}
        assert len(holders) == sum(row.dedupe is not None for row in self.rows)
        assert holders == {identity: row_id for identity, (_, row_id) in self._held.items()}

    async def check_reads(self, vendor: Vendor) -> None:
        """Check that the vendor's reads show only that vendor's events, as they were sent, newest first."""
        mine = [row for row in reversed(self.rows) if row.receiver == vendor.receiver.name]
        match vendor.receiver.name:
            case "scrip":
                shown = await self._listed(vendor, "/v1/events")
                self._check_shown(mine, shown, hidden=("status",))
                for row, event in zip(mine, shown, strict=True):
                    one = await self.call(vendor, "GET", f"/v1/events/{event['id']}")
                    assert (_as_read(one), row.id.hex()) == ((200, event), event["id"].replace("-", ""))
            case "immutable":
                # `targets` and `resource` are shown in the vendor's own form.
                self._check_shown(mine, await self._listed(vendor, "/api/v1/events"), hidden=("actor_id",))
                checked = await self.call(vendor, "GET", "/api/v1/verify")
                assert _as_read(checked) == (
                    200, {"data": {"valid": True, "events_checked": len(self.rows), "breaks": []}},
                )  # fmt: skip
            case "roboflow":
                await self._check_query(vendor, [row for row in mine if row.dedupe is not None])

    async def _listed(self, vendor: Vendor, path: str) -> list[Any]:
        """Return a list by pages of three."""
        shown: list[Any] = []
        query = {"limit": "3"}
        while True:
            status, body = _as_read(await self.call(vendor, "GET", path, query=query))
            assert status == 200
            assert 0 < len(body["data"]) <= 3 or not shown
            shown += body["data"]
            cursor = body["pagination"]["next_cursor"]
            assert body["pagination"]["has_more"] is (cursor is not None)
            if cursor is None:
                return shown
            query["cursor"] = cursor

    def _check_shown(self, rows: Sequence[StoredEvent], shown: Sequence[Any], *, hidden: Sequence[str]) -> None:
        assert [row.id.hex() for row in rows] == [event["id"].replace("-", "") for event in shown]
        for row, event in zip(rows, shown, strict=True):
            sent = {name: value for name, value in _exact(self.texts[row.id]).items() if name not in hidden}
            assert canonical.encode({name: event[name] for name in sent}) == canonical.encode(sent)

    async def _check_query(self, vendor: Vendor, newest: Sequence[StoredEvent]) -> None:
        events: list[Any] = []
        query: dict[str, Any] = {"useCaseId": "line-1", "limit": 3}
        while query.get("cursor", "") is not None:
            body = orjson.dumps(query)
            status, page = _as_read(await self.call(vendor, "POST", "/vision-events/query", body))
            assert (status, page["hasMore"]) == (200, page["nextCursor"] is not None)
            events += page["events"]
            query["cursor"] = page["nextCursor"]
        assert [*map(canonical.encode, events)] == [_canonical(self.texts[row.id]) for row in newest]


def _fate(vendor: Vendor, case: Case, held: dict[str, str]) -> Fate:
    """Return the expected fate of one event, and remember it for later events: the contract in five lines."""
    if not case.valid:
        return Fate.INVALID
    if case.key is None or case.key not in held:
        fate = Fate.NEW
    elif held[case.key] == case.content or vendor.on_mismatch is Mismatch.DUPLICATE:
        return Fate.SAME
    elif vendor.on_mismatch is Mismatch.CONFLICT:
        return Fate.CONFLICT
    else:
        fate = Fate.REPLACED
    if case.key is not None:
        held[case.key] = case.content
    return fate


def _as_read(exchange: Exchange) -> tuple[int, Any]:
    """Return status and body as a client reads them, every number exact."""
    return exchange.reply.status, _exact(orjson.dumps(exchange.reply.body))


def _exact(text: bytes) -> Any:
    return jsonbody.read_one(text)


def _canonical(text: bytes) -> bytes:
    return canonical.encode(_exact(text))


async def _in_turn(world: World, steps: Sequence[tuple[Vendor, Sequence[Case]]]) -> None:
    for vendor, batch in steps:
        await world.send(vendor, batch)
    await world.check_sound()
    for vendor in VENDORS.values():
        await world.check_reads(vendor)


@pytest.mark.parametrize("name", VENDORS)
@on_sqlite
@_examples(40)
@given(data=st.data())
async def test_answer_store_and_reads_agree(bench: Bench, name: str, data: st.DataObject) -> None:
    vendor = VENDORS[name]
    batches = data.draw(st.lists(_batches(vendor), min_size=1, max_size=2))
    world = await bench.world()
    for batch in (*batches, batches[-1]):  # the last one again: events with an identity stay unchanged
        stored = len(world.rows)
        await world.send(vendor, batch)
    keys = [case.key for case in batches[-1] if case.valid]
    if None not in keys and (vendor is not ROBOFLOW or len(set(keys)) == len(keys)):
        assert len(world.rows) == stored
    await world.check_sound()
    await world.check_reads(vendor)


_STEPS = st.lists(
    st.sampled_from([*VENDORS.values()]).flatmap(lambda vendor: st.tuples(st.just(vendor), _batches(vendor, 5))),
    min_size=1,
    max_size=5,
)


@on_sqlite
@_examples(25)
@given(steps=_STEPS)
async def test_vendors_in_one_workspace(bench: Bench, steps: list[tuple[Vendor, list[Case]]]) -> None:
    await _in_turn(await bench.world(), steps)


@on_postgres
@_examples(15)
@given(steps=_STEPS)
async def test_vendors_in_one_workspace_of_postgres(bench: Bench, steps: list[tuple[Vendor, list[Case]]]) -> None:
    await _in_turn(await bench.world(), steps)


@pytest.mark.parametrize("name", [name for name, vendor in VENDORS.items() if vendor.request_key])
@on_sqlite
@_examples(20)
@given(data=st.data())
async def test_a_request_key_replays(bench: Bench, name: str, data: st.DataObject) -> None:
    vendor = VENDORS[name]
    batch, other = data.draw(_batches(vendor)), data.draw(_batches(vendor))
    world = await bench.world()
    first = await world.send(vendor, batch, key="r")
    again = await world.call(vendor, "POST", vendor.batch, batch_of(batch), key="r")
    assert (first.replayed, again.replayed) == (False, True)
    assert _as_read(again) == _as_read(first)
    if batch_of(other) != batch_of(batch):
        with pytest.raises(RequestKeyReused):
            await world.call(vendor, "POST", vendor.batch, batch_of(other), key="r")
    assert await world.read() == world.rows
    await world.send(vendor, batch, key="s")


@pytest.mark.parametrize("name", VENDORS)
@on_sqlite
@_examples(25)
@given(data=st.data())
async def test_a_single_event_is_a_batch_of_one(bench: Bench, name: str, data: st.DataObject) -> None:
    """The same events, one by one at one endpoint and in batches of one at the other."""
    vendor = VENDORS[name]
    batched, singly = await bench.world(), await bench.world()
    for case in data.draw(_batches(vendor, 4)):
        await batched.send(vendor, [case])
        status, body = _as_read(await singly.call(vendor, "POST", vendor.single, case.text))
        singly.rows = await singly.read()
        assert [row[4:13] for row in singly.rows] == [row[4:13] for row in batched.rows]
        assert (status < 300) is case.valid or (status == 409 and vendor is SCRIP)
        assert (status < 300) is not (body.keys() & {"error", "errors", "message"} != set())


_SOURCES = (PROGRAM, PROGRAM[:-1] + "1")
_COMMON = ("program_id", "idempotency_key")
_NOT_FOR_BOTH = (b"5", b"true", b"[]", b"{}", rb'"\ud800"', rb'"\u0000"', b'"' + b"x" * 256 + b'"')
"""Values that Scrip's receiver and the native API treat differently: the native API accepts null or empty ones."""


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return an event for Scrip and the same event for the native API: `source` is the program, `data` the object."""
    whole = draw(st.none() | st.none() | st.none() | st.sampled_from(NO_EVENTS))
    if whole is not None:
        return whole, whole
    members = SCRIP.members(draw(st.sampled_from("ab")), draw(st.sampled_from((b"1", b"1.0", b"2", b"1e400"))))
    members["program_id"] = b'"%s"' % draw(st.sampled_from(_SOURCES)).encode()
    if draw(st.booleans()):
        flawed = st.tuples(st.sampled_from(_COMMON), st.sampled_from(_NOT_FOR_BOTH))
        name, raw = draw(flawed | st.tuples(st.just("x"), st.sampled_from(POISON)))
        members[name] = raw
    native = {"type": b'"purchase"', "source": members["program_id"], "idempotency_key": members["idempotency_key"]}
    return text_of(members), text_of(native | {"data": text_of(members)})


@on_sqlite
@_examples(60)
@given(batches=st.lists(st.lists(_pairs(), min_size=1, max_size=8), min_size=1, max_size=2))
async def test_native_and_scrip_agree(bench: Bench, batches: list[list[tuple[bytes, bytes]]]) -> None:
    ours, theirs = await bench.world(), await bench.world()
    for batch in (*batches, batches[-1]):
        _, answer = _as_read(await theirs.call(SCRIP, "POST", SCRIP.batch, batch_of([Case(text) for text, _ in batch])))
        body = HttpBody(data=batch_of([Case(text) for _, text in batch]))
        slots = decode.batch(RawBatchIngestRequest(json=body), 1_000).slots
        decision = await bench.ingest.take(ours._workspace, Submission(workspace_id=ours._workspace.id, slots=slots))
        assert isinstance(decision, Settled)
        outcomes = decision.outcomes
        ours.rows, theirs.rows = await ours.read(), await theirs.read()
        # Both events have the same place in their ledgers.
        places = [{row.id.hex(): row.sequence for row in world.rows} for world in (ours, theirs)]
        native = [
            ("accepted", places[0][outcome.link.id.hex()])
            if outcome.link is not None and outcome.status in STORED
            else ("conflict" if outcome.status is Status.CONFLICT else "rejected", 0)
            for outcome in outcomes
        ]
        scrip = [
            ("accepted", places[1][result["event"]["id"].replace("-", "")])
            if result["status"] == "accepted"
            else ("conflict" if result["error"] == "idempotency_conflict" else "rejected", 0)
            for result in answer["results"]
        ]
        assert scrip == native
    assert [(row.type, row.source, row.data, row.key) for row in ours.rows] == [
        (row.type, row.source, row.data, row.key) for row in theirs.rows
    ]
