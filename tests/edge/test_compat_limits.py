"""Rate limits and quotas, set with `headgate workspaces`, at the vendors' endpoints."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count

import pytest

from headgate_server.core.model import Scope
from tests.edge.conftest import MakeEdge
from tests.support.edge import Edge, failure, statuses
from tests.support.up import headgate
from tests.support.vendors import VENDORS

DAY = 86_400

on_each_store = pytest.mark.parametrize("store", ["sqlite", "postgres"])


def _limited(make_edge: MakeEdge, store: str, *limits: str, scopes: tuple[Scope, ...] = (Scope.ADMIN,)) -> Edge:
    """Make a workspace with these limits. A key that was not used yet gets them at once."""
    name = f"w{uuid.uuid4().hex}"
    edge = make_edge(*scopes, workspace=name, store=store)
    done = headgate("workspaces", "set", name, *limits, "--store", edge.url)
    assert (done.returncode, done.stderr) == (0, "")
    return edge


@on_each_store
@pytest.mark.parametrize("name", VENDORS)
def test_a_request_over_the_rate_is_refused_and_stores_nothing(make_edge: MakeEdge, store: str, name: str) -> None:
    vendor = VENDORS[name]
    edge = _limited(make_edge, store, "--rate", f"{name}=2/day")
    sent = [edge.post(vendor.batch, {"events": [vendor.event(n)]}) for n in range(4)]
    assert [response.status_code for response in sent] == [vendor.success, vendor.success, 429, 429]
    for response in sent[2:]:
        refusal = vendor.refusal(response)
        assert refusal[:3] == (429, vendor.codes.get(429, ""), "More than 2 requests per day.")
        assert 0 < int(response.headers["retry-after"]) <= DAY // 2
    assert edge.stored() == 2
    # Each vendor has a limit of its own, and the native API has none.
    other = VENDORS["immutable" if name != "immutable" else "vibefollow"]
    assert edge.post(other.batch, {"events": [other.event(0)]}).status_code == other.success
    native = edge.post("/v1/events/batch", {"events": [{"type": "t"}]})
    assert native.status_code == 200
    assert not any(header.startswith("x-ratelimit-") for header in native.headers)


def test_a_refused_request_touches_nothing_else(make_edge: MakeEdge) -> None:
    """Its Idempotency-Key stays free, and its body is not read."""
    vendor = VENDORS["flokit"]
    edge = _limited(make_edge, "sqlite", "--rate", "flokit=1/second")
    assert edge.post(vendor.batch, {"events": vendor.events(1)}, idempotency_key="a").status_code == 200
    deadline = time.monotonic() + 10
    for number in count():  # on a slow machine the limit may be free again
        key = f"b{number}"
        refused = edge.post(vendor.batch, b"{", idempotency_key=key)
        if refused.status_code == 429:
            break
        assert time.monotonic() < deadline
    while refused.status_code == 429:  # the answer says when to retry
        assert refused.headers["retry-after"] == "1"
        assert time.monotonic() < deadline
        refused = edge.post(vendor.batch, {"events": vendor.events(2)}, idempotency_key=key)
    assert (refused.status_code, refused.json()["accepted"]) == (200, 2)
    assert "idempotency-replayed" not in refused.headers
    assert edge.stored() == 3


def test_scrips_headers_count_down(edge: Edge) -> None:
    vendor = VENDORS["scrip"]
    asked = time.time()
    sent = [edge.post(vendor.batch, {"events": [vendor.event(n)]}) for n in range(3)]
    sent += [edge.post(vendor.batch, b"{"), edge.http.get("/compat/scrip/v1/events")]
    for response in sent:
        assert response.headers["x-ratelimit-limit"] == "30"
        assert asked - 1 <= int(response.headers["x-ratelimit-reset"]) <= asked + 30
    remaining = [int(response.headers["x-ratelimit-remaining"]) for response in sent]
    assert remaining[0] == 29
    assert all(0 <= left < 30 for left in remaining)


def test_scrips_headers_on_a_refusal(make_edge: MakeEdge) -> None:
    vendor = VENDORS["scrip"]
    edge = _limited(make_edge, "sqlite", "--rate", "scrip=2/hour")
    sent = [edge.post(vendor.batch, {"events": [vendor.event(n)]}) for n in range(4)]
    assert [response.headers["x-ratelimit-limit"] for response in sent] == ["2"] * 4
    assert [response.headers["x-ratelimit-remaining"] for response in sent] == ["1", "0", "0", "0"]
    first, second = (int(response.headers["x-ratelimit-reset"]) for response in sent[2:])
    assert abs(first - second) <= 1  # the same moment, from the store and from memory
    assert vendor.refusal(sent[3])[:2] == (429, "too_many_requests")
    assert all(sent[3].headers.get_list(header) for header in ("retry-after", "x-request-id"))
    assert len(sent[3].headers.get_list("x-ratelimit-remaining")) == 1


@pytest.mark.parametrize("name", sorted(VENDORS.keys() - {"scrip"}))
def test_only_scrip_tells_of_its_limit(edge: Edge, name: str) -> None:
    vendor = VENDORS[name]
    response = edge.post(vendor.batch, {"events": vendor.events(1)})
    assert not any(header.startswith("x-ratelimit-") for header in response.headers)


@pytest.mark.parametrize(("name", "burst"), [("flokit", 100), ("scrip", 30)])
def test_the_vendors_own_limits_hold_where_none_is_set(edge: Edge, name: str, burst: int) -> None:
    """As many at once as the burst allows; meanwhile a few become free again.

    Many calls at the same time: one after another, on a busy machine, they would come no faster than they become free.
    """
    vendor = VENDORS[name]
    began = time.monotonic()
    codes: list[int] = []
    with ThreadPoolExecutor(16) as callers:
        while 429 not in codes:
            codes += callers.map(lambda _: edge.post(vendor.batch, b"{").status_code, range(burst))
            assert len(codes) <= 20 * burst
    took = time.monotonic() - began
    per_second = {"flokit": 100 / 60, "scrip": 10}[name]
    assert burst <= codes.count(400) <= burst + took * per_second + 1


def test_a_limit_can_be_lifted(make_edge: MakeEdge) -> None:
    edge = _limited(make_edge, "sqlite", "--rate", "scrip=none", "--rate", "flokit=1/hour")
    vendor = VENDORS["scrip"]
    sent = [edge.post(vendor.batch, b"{") for _ in range(40)]
    assert {response.status_code for response in sent} == {400}
    assert not any(header.startswith("x-ratelimit-") for response in sent for header in response.headers)
    assert edge.post(VENDORS["flokit"].batch, b"{").status_code == 400
    assert edge.post(VENDORS["flokit"].batch, b"{").status_code == 429


def _assert_until_next_month(retry_after: str) -> None:
    now = datetime.now(UTC)
    first = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    assert abs(int(retry_after) - (first - now).total_seconds()) < 60


@on_each_store
def test_a_batch_that_crosses_the_quota_is_taken_up_to_it(make_edge: MakeEdge, store: str) -> None:
    edge, vendor = _limited(make_edge, store, "--quota", "3"), VENDORS["immutable"]
    first = vendor.event(0) | {"idempotency_key": "k"}
    # Neither a duplicate nor an invalid event counts.
    crossing = edge.post(vendor.batch, {"events": [first, first, {}, *vendor.events(4)]})
    assert crossing.status_code == 202
    events = crossing.json()["events"]
    assert " ".join(event["status"] for event in events) == "queued duplicate invalid queued queued invalid invalid"
    assert [event["error"] for event in events if event["status"] == "invalid"] == [
        "validation_failed", "quota_exceeded", "quota_exceeded",
    ]  # fmt: skip
    assert list(events[-1]) == ["id", "status", "error", "message"]
    assert events[-1]["id"] is None

    usage = edge.http.get("/v1/usage").json()
    assert (usage["used"], usage["quota"]) == (3, 3)
    batch = edge.post(vendor.batch, {"events": vendor.events(2)})
    single = edge.post("/compat/immutable/api/v1/events", vendor.event(1))
    for beyond in (batch, single):
        assert vendor.refusal(beyond)[:2] == (429, "quota_exceeded")
        _assert_until_next_month(beyond.headers["retry-after"])
    again = edge.post(vendor.batch, {"events": [first]})
    assert (again.status_code, again.json()["events"][0]["status"]) == (202, "duplicate")
    assert edge.stored() == 3


@on_each_store
def test_what_the_others_say_beyond_the_quota(make_edge: MakeEdge, store: str) -> None:
    edge = _limited(make_edge, store, "--quota", "1")
    assert statuses(edge.batch({"type": "t"}, {"type": "t"})) == ["accepted", "rejected"]
    stored = {}
    for name, vendor in VENDORS.items():
        response = edge.post(vendor.batch, {"events": vendor.events(2)})
        stored[name] = (response.status_code, list(vendor.taken(response, 2)))
        if response.status_code == 429:
            _assert_until_next_month(response.headers["retry-after"])
    # FloKit and Scrip answer it for each event, like every error.
    assert stored == {
        "roboflow": (429, []), "immutable": (429, []), "flokit": (200, []), "vibefollow": (429, []), "scrip": (200, []),
    }  # fmt: skip
    assert edge.stored() == 1


@on_each_store
def test_all_or_nothing_meets_the_quota(make_edge: MakeEdge, store: str) -> None:
    """A VibeFollow batch over the quota is refused whole; its key stays free for a later retry."""
    name, vendor = f"w{uuid.uuid4().hex}", VENDORS["vibefollow"]
    edge = make_edge(workspace=name, store=store)
    settings = ("--store", edge.url)
    assert headgate("workspaces", "set", name, "--quota", "3", *settings).returncode == 0
    beyond = edge.post(vendor.batch, {"events": vendor.events(4)}, idempotency_key="k")
    assert vendor.refusal(beyond)[:2] == (429, "quota_exceeded")
    assert edge.stored() == 0
    assert edge.post(vendor.batch, {"events": vendor.events(3)}).status_code == 202
    assert headgate("workspaces", "set", name, "--quota", "none", *settings).returncode == 0
    later = edge.post(vendor.batch, {"events": vendor.events(4)}, idempotency_key="k")
    assert (later.status_code, later.headers.get("idempotency-replayed")) == (202, None)
    assert edge.stored() == 7
    usage = edge.http.get("/v1/usage").json()
    assert usage["used"] == 7
    assert "quota" not in usage


def test_usage_needs_its_scope(make_edge: MakeEdge) -> None:
    assert failure(make_edge(Scope.EVENTS_WRITE).http.get("/v1/usage"))[0] == 403
    usage = make_edge(Scope.EVENTS_READ).http.get("/v1/usage").json()
    assert usage["used"] == 0
    start, end = (datetime.fromisoformat(usage[name]) for name in ("period_start", "period_end"))
    assert start.day == end.day == 1
    assert start <= datetime.now(UTC) < end


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("nobody", "--quota", "1"), "no workspace 'nobody'", id="no such workspace"),
        pytest.param(("{}", "--rate", "nobody=1/minute"), "no receiver 'nobody'", id="no such receiver"),
        pytest.param(("{}", "--rate", "flokit=many/minute"), "flokit=many/minute", id="no number"),
        pytest.param(("{}", "--rate", "flokit=0/minute"), "flokit=0/minute", id="zero"),
        pytest.param(("{}", "--rate", "flokit=1/fortnight"), "flokit=1/fortnight", id="no period"),
        pytest.param(("{}", "--quota", "-1"), "-1", id="a negative quota"),
        pytest.param(("{}", "--quota", "many"), "many", id="no quota"),
        pytest.param(("{}",), "--quota", id="nothing to set"),
    ],
)
def test_limits_that_cannot_be(make_edge: MakeEdge, arguments: tuple[str, ...], said: str) -> None:
    name = f"w{uuid.uuid4().hex}"
    edge = make_edge(workspace=name)
    done = headgate("workspaces", "set", *(part.format(name) for part in arguments), "--store", edge.url)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_workspaces_are_listed_with_their_limits(make_edge: MakeEdge) -> None:
    name = f"w{uuid.uuid4().hex}"
    edge = make_edge(workspace=name)
    limits = ("--quota", "500", "--rate", "flokit=2/minute", "--rate", "scrip=none")
    assert headgate("workspaces", "set", name, *limits, "--store", edge.url).returncode == 0
    edge.batch({"type": "t"})
    done = headgate("workspaces", "list", "--store", edge.url)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(name)]
    month = datetime.now(UTC).strftime("%Y-%m")
    assert line == f"{name}  1 events in {month}  quota 500 a month  flokit=2/minute  scrip=none"
