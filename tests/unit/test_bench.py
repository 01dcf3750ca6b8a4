"""The parts of the benchmark that can be tested without running it."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bench import calls, empty, report, run, suite, tools
from bench.calls import Call
from bench.contender import Assignment, Timing
from bench.driver import Loop, Refused
from bench.measured import Played
from bench.run import highest_rate
from bench.stage import Role
from bench.suite import By, Load, Ratio, Scenario, Store
from headgate.v1.ingest_service_pb2 import (
    BatchIngestRequest,
    BatchIngestResponse,
    EventResult,
    IngestResponse,
)
from headgate_server.core import compiled
from headgate_server.store.opening import open_store
from tests.support import ghzfiles

_FAST, _SLOW, _LIMIT = Load(By.GRPC, 100, 64), Load(By.GRPC, 100, 8), Load(By.LIMIT, 4_000)


def _turns(*rates: float) -> list[Timing]:
    return [Timing(events=100, seconds=100 / rate, spent={"generator": 0.5}, peak_mib=40.0) for rate in rates]


def _answer(*statuses: str) -> bytes:
    return BatchIngestResponse(results=[EventResult(status=status) for status in statuses]).SerializeToString()


@pytest.mark.parametrize("name", ghzfiles.BATCHES)
def test_configurations_of_ghz_are_up_to_date(name: str) -> None:
    content = (ghzfiles.FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert json.loads(content) == ghzfiles.configuration(ghzfiles.BATCHES[name]), "run python -m tests.support.ghzfiles"


@pytest.mark.parametrize("batch", ghzfiles.BATCHES.values())
def test_every_event_of_ghz_has_a_key_of_its_own_in_every_call(batch: int) -> None:
    data = ghzfiles.configuration(batch)["data"]
    keys = [event["idempotency_key"] for event in (data["events"] if batch else [data["event"]])]
    assert len(set(keys)) == max(batch, 1)
    assert all("{{.UUID}}" in key for key in keys)


@pytest.mark.parametrize(
    "scenarios",
    [suite.quick(), [*suite.everything(), *suite.by_request()]],
    ids=["quick", "all"],
)
def test_scenarios_hold_what_their_ratios_are_of(scenarios: list[Scenario]) -> None:
    assert len({scenario.name for scenario in scenarios}) == len(scenarios)
    for scenario in scenarios:
        assert len(set(scenario.loads)) == len(scenario.loads)
        for ratio in scenario.ratios:
            assert {*ratio.over, *ratio.under} <= set(scenario.loads)


def test_everything_covers_what_the_documentation_promises() -> None:
    loads = [load for scenario in suite.everything() for load in scenario.loads]
    assert {load.batch for load in loads if load.by is By.GRPC} >= {1, 10, 100, 1_000}
    assert {load.duplicates for load in loads} >= {0.0, 0.1, 1.0}
    assert {(load.workspaces, load.batch, load.hot) for load in loads} >= {
        (1_000, 100, False),
        (1_000, 10, False),
        (1_000, 10, True),
    }
    assert {load.by for load in loads if load.pace} == {By.GRPC, By.HTTP, By.EMPTY}
    assert {load.by for load in loads} == set(By)
    assert {scenario.rows for scenario in suite.everything()} == {0, 200_000, 10_000_000}
    assert {scenario.name for scenario in suite.by_request()} == {"growth-100000k-postgresql", "growth-100000k-sqlite"}
    assert {load.callers for load in suite.everything()[0].ratios[0].over} == {16, 32, 64, 128}
    lone = {(load.by, load.batch) for load in loads if load.callers == 1}
    assert lone >= {(by, batch) for by in (By.GRPC, By.HTTP) for batch in (1, 100)}


@pytest.mark.parametrize(("core", "of_limit", "of_peer"), [(None, 0.50, 6), (object(), 0.62, 8)])
def test_targets_are_those_of_the_code_in_use(core: Any, of_limit: float, of_peer: float) -> None:
    with compiled.using(core):
        targets = {ratio.name: ratio.target for ratio in suite.quick()[0].ratios}
    assert targets["gRPC, 100 a batch ÷ the limit, PostgreSQL"] == of_limit
    assert targets["gRPC, 100 a batch ÷ FastAPI + SQLAlchemy, PostgreSQL"] == of_peer


def test_the_core_is_compared_with_python_alone_where_it_is_in_use() -> None:
    scenarios = [one for one in suite.everything() if any(load.pure for load in one.loads)]
    assert [one.name for one in scenarios] == ["compiled-postgresql", "compiled-sqlite"]
    for core, left_out in ((None, True), (object(), False)):
        with compiled.using(cast("Any", core)):
            assert {one.left_out for one in scenarios} == {left_out}
            assert not any(one.left_out for one in suite.quick())
            assert [ratio.target for ratio in scenarios[0].ratios] == [0.50, 1.45, 1.45]
    for ratio in scenarios[0].ratios[1:]:
        (over,), (under,) = ratio.over, ratio.under
        assert (replace(over, pure=True), over.callers) == (under, 64)


def test_the_report_says_what_is_left_out() -> None:
    assert "Left out: one." in report.markdown("make bench", [], "Left out: one.").splitlines()


def test_the_empty_rpc_answers_with_as_many_bytes_as_the_product() -> None:
    created = Timestamp(seconds=1_790_000_000, nanos=177_160_000)
    result = EventResult(status="accepted", id=36 * "0", sequence=1_000_000, created_at=created, event_hash=64 * "0")
    assert len(empty.ANSWER) == IngestResponse(result=result).ByteSize()
    assert calls.SINGLE.statuses(empty.ANSWER) == ["accepted"]


def test_the_report_says_which_core_was_used_and_how_long_it_took() -> None:
    played = [Played(Scenario("", Store.SQLITE, (_FAST,)), {_FAST: _turns(60)}, "SQLite", 90.0)] * 2
    head = report.markdown("make bench", played).splitlines()[2]
    assert f"core: {compiled.found.said}" in head
    assert "3 minutes in all" in head


def test_a_ratio_is_of_the_fastest_loads_round_by_round() -> None:
    rounds = {_FAST: _turns(60, 50, 70), _SLOW: _turns(90, 10, 10), _LIMIT: _turns(100, 50, 100)}
    ratio = Ratio("", (_SLOW, _FAST), (_LIMIT,), 0.8)
    scenario = Scenario("", Store.SQLITE, tuple(rounds), (ratio,))
    (compared,) = Played(scenario, rounds, "", 0.0).compared()
    assert compared.over == _FAST
    assert compared.by_round == pytest.approx([0.6, 1.0, 0.7])
    assert compared.verdict == "short"


@pytest.mark.parametrize(("slower", "verdict"), [(40.0, "reached"), (41.0, "short")])
def test_a_ratio_of_p99_has_a_most(slower: float, verdict: str) -> None:
    rounds = {_FAST: [Timing(100, p99=slower, seconds=1.0)], _SLOW: [Timing(100, p99=10.0, seconds=9.0)]}
    ratio = Ratio("", (_FAST,), (_SLOW,), 4, of_p99=True)
    played = Played(Scenario("", Store.SQLITE, tuple(rounds), (ratio,)), rounds, "", 0.0)
    (compared,) = played.compared()
    assert compared.by_round == [slower / 10]
    assert compared.verdict == verdict
    assert "at most 4" in report.ratios([played])


def test_half_load_is_half_of_the_fastest_of_the_same_kind() -> None:
    paced, other = Load(By.GRPC, 100, 64, pace=0.5), Load(By.GHZ, 100, 64)
    rounds = {_FAST: _turns(60), _SLOW: _turns(90), _LIMIT: _turns(900), paced: _turns(500), other: _turns(95)}
    assert highest_rate(paced, rounds, by=By.GRPC) == pytest.approx(90)
    assert highest_rate(paced, rounds) == pytest.approx(95)
    assert highest_rate(Load(By.GRPC, 10, 1), rounds) == 0


def test_a_row_says_what_each_part_spent_on_100_000_events() -> None:
    scenario = Scenario("", Store.SQLITE, (_FAST,))
    turns = _turns(60, 50)
    turns[1].answered = 300  # two thirds of them before the clock started and after it stopped
    lines = report.markdown("make bench", [Played(scenario, {_FAST: turns}, "SQLite", 1.0)]).splitlines()
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells[:7] == ["gRPC, lean driver", "100", "64", "", "55", "50", "60"]
    assert cells[9:] == ["250.00", "-", "-", "-", "40"]


def test_a_plan_sends_its_duplicates_twice_and_takes_workspaces_in_turn() -> None:
    plan = calls.plan(Assignment(Load(By.GRPC, 10, duplicates=0.2, workspaces=3), 40), calls.BATCH)
    assert [call.workspace for call in plan.calls] == [0, 1, 2, 0]
    for original, call in zip(plan.originals, plan.calls, strict=True):
        first, later = (BatchIngestRequest.FromString(one.body).events for one in (original, call))
        assert list(first) == list(later)[:2]
        assert call.statuses == ["duplicate"] * 2 + ["accepted"] * 8
    keys = {event.idempotency_key for call in plan.calls for event in BatchIngestRequest.FromString(call.body).events}
    assert len(keys) == 40


def test_a_hot_workspace_gets_half_of_the_calls() -> None:
    plan = calls.plan(Assignment(Load(By.GRPC, 1, workspaces=3, hot=True), 6), calls.SINGLE)
    assert [call.workspace for call in plan.calls] == [0, 0, 2, 0, 1, 0]


def test_an_answer_that_is_not_as_it_must_be_ends_the_run() -> None:
    call = Call(b"", 0, ["duplicate", "accepted"])
    assert calls.BATCH.check(call, _answer("duplicate", "accepted")) == 1
    for wrong in (("accepted", "duplicate"), ("duplicate",), ("duplicate", "conflict")):
        with pytest.raises(RuntimeError, match="answered with"):
            calls.BATCH.check(call, _answer(*wrong))


async def test_a_refused_caller_comes_again_and_is_counted() -> None:
    assignment = Assignment(Load(By.GRPC, 1, callers=2), 8)
    refusals = [0.0, 0.001]

    async def send(call: Call) -> bytes:
        await asyncio.sleep(0)
        if refusals:
            raise Refused(refusals.pop())
        return _answer("accepted")

    loop = Loop(calls.plan(assignment, calls.BATCH), [send], assignment)
    await loop.run()
    timing = await loop.check()
    assert (timing.answered, timing.stored, timing.refused) == (8, 8, 2)


async def test_an_overload_ends_with_the_first_caller_who_has_nothing_to_send() -> None:
    assignment = Assignment(Load(By.GRPC, 1, callers=2, overload=True), 8)
    sent: list[Call] = []

    async def send(call: Call) -> bytes:
        sent.append(call)
        if len(sent) == 1:
            # Much longer than the other caller needs for all calls; the end of its calls must end this wait.
            raise Refused(60.0)
        return _answer("accepted")

    loop = Loop(calls.plan(assignment, calls.BATCH), [send], assignment)
    async with asyncio.timeout(30):
        await loop.run()
    timing = await loop.check()
    # The other caller has sent seven calls. The clock ran from its third answer to its last one.
    assert (timing.answered, timing.stored, timing.refused, timing.events) == (7, 7, 1, 4)


async def test_the_clock_runs_while_every_caller_has_a_call_outstanding() -> None:
    assignment = Assignment(Load(By.GRPC, 10, callers=3), 120)
    rounds: list[asyncio.Event] = []
    sent = 0

    async def send(call: Call) -> bytes:
        nonlocal sent
        number, sent = sent // 3, sent + 1
        rounds.extend([asyncio.Event()] if number == len(rounds) else [])
        if sent % 3 == 0:
            # The server answers a whole round at once, and takes longer before the first.
            asyncio.get_running_loop().call_later(0.0 if number else 0.05, rounds[number].set)
        await rounds[number].wait()
        return _answer(*["accepted"] * 10)

    loop = Loop(calls.plan(assignment, calls.BATCH), [send], assignment)
    started = time.perf_counter()
    await loop.run()
    whole = time.perf_counter() - started
    timing = await loop.check()
    # Of four rounds the clock counts two, from the first answer of the second to the first answer of the fourth.
    assert (timing.events, timing.answered, timing.stored) == (60, 120, 120)
    assert 0.0 < timing.seconds < whole - 0.045


@pytest.mark.parametrize(("events", "calls_each"), [(1, 4), (6_400 * 5 - 99, 5), (6_400 * 5 + 1, 6)])
def test_every_caller_has_equally_many_calls(events: float, calls_each: int) -> None:
    assert run._assignment(_FAST, events).events == 6_400 * calls_each
    assert run._assignment(replace(_FAST, pace=0.5), events, pace=1.0).events == -(-events // 100) * 100


def test_the_reports_of_wrk_become_one_result() -> None:
    load = Load(By.PEER, 100, callers=4)
    one = {"calls": 11, "seconds": 2.0, "p50": 300.0, "p99": 500.0, "refused": 1, "failed": 0}
    timing = tools.timing(load, [one, {**one, "calls": 9, "p50": 400.0, "refused": 0}], 0.5)
    assert (timing.events, timing.refused, timing.p50, timing.p99) == (1_900, 1, 400.0, 500.0)
    assert timing.cpu_seconds == 0.5
    # The end cuts off half a call of each caller.
    assert timing.seconds == pytest.approx(1.8)
    with pytest.raises(RuntimeError, match="2 calls failed, 19 were answered"):
        tools.timing(load, [one, {**one, "calls": 9, "refused": 0, "failed": 2}], 0.5)
    with pytest.raises(TimeoutError):
        tools.timing(load, [{**one, "calls": 3}], 0.5)


class _Echo(tools.Tool):
    name = "echo"


async def test_callers_of_a_tool_are_shared_among_its_targets() -> None:
    tool = _Echo(["one", "other", "none"], "key")
    await tool.prepare(Assignment(Load(By.PEER, 100, callers=2), 0), 1.0)
    outputs, _ = await tool._run(lambda target, share: [target, str(share)])
    assert outputs == ["one 1\n", "other 1\n"]
    await tool.prepare(Assignment(Load(By.PEER, 100, callers=8), 0), 1.0)
    outputs, _ = await tool._run(lambda target, share: [target, str(share)])
    assert outputs == ["one 3\n", "other 3\n", "none 2\n"]


async def test_a_latency_at_a_rate_counts_from_when_the_call_was_due() -> None:
    assignment = Assignment(Load(By.GRPC, 1), 3, rate=1_000.0)
    free = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, free.set)

    async def send(call: Call) -> bytes:
        await free.wait()
        return _answer("accepted")

    loop = Loop(calls.plan(assignment, calls.BATCH), [send], assignment)
    await loop.run()
    timing = await loop.check()
    assert timing.events == 3
    assert timing.p50 > 40


class _Slow:
    """A tool that has too few answers in less than four seconds."""

    def __init__(self) -> None:
        self.tried: list[float] = []

    async def prepare(self, assignment: Assignment, seconds: float) -> None:
        self.tried.append(seconds)

    async def go(self) -> Timing:
        if self.tried[-1] < 4:
            raise TimeoutError
        return Timing(events=100, seconds=self.tried[-1])


async def test_a_tool_that_has_too_few_answers_gets_twice_the_time(sqlite_url: str) -> None:
    await (await open_store(sqlite_url)).close()
    sender: Any = _Slow()
    timing = await run._turn(sqlite_url, Role(sender, {}, stores=False), Assignment(_FAST, 100), 1.0)
    assert sender.tried == [1.0, 2.0, 4.0]
    assert timing.seconds == 4.0


def test_the_benchmark_stays_small() -> None:
    """The benchmark must be faster to read than the product. Delete code before you add some."""
    folder = Path(run.__file__).parent
    files = [*folder.rglob("*.py"), *folder.rglob("*.lua")]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= 1_800
