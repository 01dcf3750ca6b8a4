"""Traces of calls and commits: whose trace they continue, what they are linked to, and what they do not show."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from headgate_server.ingest.committer import Committer
from tests.support import database
from tests.support.calls import Caller, event, refused, statuses
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite
from tests.support.service import ServerProcess, make_key
from tests.support.spans import Traced, identity, links

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")
PHASES = ["lock", "look_up", "settle", "write", "commit"]


@pytest.fixture
def traced() -> Traced:
    return Traced()


@pytest.fixture
async def service(store_url: str, traced: Traced) -> AsyncIterator[Service]:
    async with serving(store_url, tracing=traced.tracing) as running:
        yield running


@pytest.fixture
async def caller(service: Service) -> AsyncIterator[Caller]:
    async with service.caller() as client:
        yield client


async def test_from_the_caller_to_the_commit(caller: Caller, traced: Traced) -> None:
    """The call continues its caller's trace, the commit is below the call, and each has a link to the other."""
    secret = "very-secret"
    await caller.batch(event(secret, {"x": secret}), event(type=""), metadata=[SENT, ("tracestate", "a=b")])
    (call,) = traced.named("BatchIngest")
    (commit,) = traced.named("commit")
    assert call.name == "headgate.v1.IngestService/BatchIngest"
    assert call.kind is SpanKind.SERVER
    assert (f"{call.context.trace_id:032x}", f"{call.parent.span_id:016x}") == (TRACE, PARENT)
    assert call.context.trace_state.to_header() == "a=b"
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert (call.attributes["headgate.accepted"], call.attributes["headgate.rejected"]) == (1, 1)
    assert call.attributes["headgate.workspace"] == "acme"
    assert (commit.context.trace_id, commit.parent.span_id) == identity(call)
    assert links(commit) == {identity(call)}
    assert links(call) == {identity(commit)}
    assert (commit.attributes["headgate.events"], commit.attributes["headgate.calls"]) == (2, 1)
    parts = [traced.named(f"commit {phase}")[0] for phase in PHASES]
    assert all((part.context.trace_id, part.parent.span_id) == identity(commit) for part in parts)
    times = [time for part in parts for time in (part.start_time, part.end_time)]
    assert times == sorted(times)
    assert call.start_time <= commit.start_time <= times[0]
    assert times[-1] <= commit.end_time <= call.end_time
    assert secret not in "".join(span.to_json() for span in (call, commit, *parts))


@on_sqlite
async def test_one_commit_of_several_callers(caller: Caller, traced: Traced) -> None:
    """The commit has links to all of them. It is in the trace of the first."""
    await asyncio.gather(*(caller.batch(event(f"k{number}")) for number in range(20)))
    spans = {identity(span): span for span in traced.named("BatchIngest")}
    commits = traced.named("commit")
    assert len(spans) == 20
    assert sum(commit.attributes["headgate.calls"] for commit in commits) == 20
    for commit in commits:
        assert len(links(commit)) == commit.attributes["headgate.calls"]
        assert (commit.context.trace_id, commit.parent.span_id) in links(commit)
        assert all(identity(commit) in links(spans[one]) for one in links(commit))
    assert max(commit.attributes["headgate.calls"] for commit in commits) > 1


@pytest.mark.parametrize(
    "sent",
    [
        [("traceparent", "")],
        [("traceparent", "00-0-0-01")],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"ff-{TRACE}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01" + "x" * 4_000)],
        [("traceparent", f"00-{TRACE.upper()}-{PARENT}-01")],
        [("traceparent-bin", b"\x00\xff")],
    ],
    ids=["empty", "short", "zeros", "version", "joined", "huge", "case", "binary"],
)
@on_sqlite
async def test_a_traceparent_that_is_none_is_ignored(
    caller: Caller, traced: Traced, sent: list[tuple[str, str | bytes]]
) -> None:
    assert statuses(await caller.batch(event("k"), metadata=sent)) == ["accepted"]
    (call,) = traced.named("BatchIngest")
    assert call.parent is None
    assert f"{call.context.trace_id:032x}" != TRACE


@on_sqlite
async def test_of_two_traceparents_the_last_one_counts(caller: Caller, traced: Traced) -> None:
    first = ("traceparent", f"00-{'1' * 32}-{PARENT}-01")
    assert statuses(await caller.batch(event("k"), metadata=[first, SENT])) == ["accepted"]
    (call,) = traced.named("BatchIngest")
    assert f"{call.context.trace_id:032x}" == TRACE


@pytest.mark.parametrize("state", ["", "=", "x" * 4_000, "a=b," * 100, "ü".encode().decode("latin-1")], ids=len)
@on_sqlite
async def test_a_tracestate_that_is_none_is_ignored(caller: Caller, traced: Traced, state: str) -> None:
    more = [("tracestate", state)] if state.isascii() else []
    assert statuses(await caller.batch(event("k"), metadata=[SENT, *more])) == ["accepted"]
    (call,) = traced.named("BatchIngest")
    assert f"{call.context.trace_id:032x}" == TRACE


async def test_a_caller_that_is_not_sampled(sqlite_url: str) -> None:
    off = Traced(ParentBased(ALWAYS_OFF))
    async with serving(sqlite_url, tracing=off.tracing) as service, service.caller() as caller:
        await caller.batch(event("a"))
        await caller.batch(event("b"), metadata=[("traceparent", f"00-{TRACE}-{PARENT}-00")])
        assert off.named("BatchIngest") == off.named("commit") == []
        await caller.batch(event("c"), metadata=[SENT])
        assert len(off.named("BatchIngest")) == len(off.named("commit")) == 1


@on_sqlite
async def test_calls_that_fail(caller: Caller, traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's fault is no failure of the server's span, and a bug's message is not in it."""
    await refused(caller.single(event(type="")))

    async def bug(*_: object) -> None:
        raise RuntimeError("very-secret")

    monkeypatch.setattr(Committer, "submit", bug)
    await refused(caller.single(event("k")))
    wrong, failed = traced.named("Ingest")
    assert (wrong.attributes["headgate.reason"], wrong.attributes["rpc.grpc.status_code"]) == ("MISSING_FIELD", 3)
    assert wrong.status.status_code is StatusCode.UNSET
    assert (failed.status.status_code, failed.attributes["rpc.grpc.status_code"]) == (StatusCode.ERROR, 13)
    assert "very-secret" not in failed.to_json()


async def test_a_commit_that_fails(sqlite_url: str, tmp_path: Path) -> None:
    """Its span has the cause by class and code. Its caller's span has failed, too."""
    traced = Traced()
    async with serving(sqlite_url, tracing=traced.tracing) as service, service.caller() as caller:
        await caller.batch(event("a"))
        await database.execute(
            sqlite_url, "CREATE TRIGGER boom BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'very-secret'); END"
        )
        await refused(caller.batch(event("b")))
    failed = traced.named("commit")[1]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["headgate.error"] == "Unavailable"
    assert failed.attributes["headgate.sqlite"].startswith("SQLITE_CONSTRAINT")
    assert traced.named("BatchIngest")[1].status.status_code is StatusCode.ERROR
    assert "very-secret" not in failed.to_json()


async def test_a_line_of_the_log_has_the_request_the_trace_and_the_key(sqlite_url: str, tmp_path: Path) -> None:
    key, log = await make_key(sqlite_url), tmp_path / "log"
    arguments = ("--log-level", "info", "--log-format", "json")
    variables = {"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "10"}
    server = ServerProcess(sqlite_url, *arguments, log=log, environment=variables)
    async with server, Caller(server.port, key) as caller:
        await caller.batch(event("k"), metadata=[SENT, ("x-request-id", "mine")])
    (line,) = [line for line in map(orjson.loads, log.read_bytes().splitlines()) if line["event"] == "call"]
    assert (line["request_id"], line["trace_id"], line["key"][:4]) == ("mine", TRACE, "key_")
