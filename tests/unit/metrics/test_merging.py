"""The metrics of several processes as one: sums, and no counter that goes backwards."""

import asyncio
import os
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headgate_server.process.metrics import Metrics, catalogue
from headgate_server.process.metrics.cells import Snapshot
from headgate_server.process.metrics.line import Line, answer
from headgate_server.process.metrics.merging import Page
from headgate_server.process.metrics.text import text


class Worker:
    """A process whose metrics a test sets. While `hangs`, it does not answer."""

    def __init__(self) -> None:
        self.generation = 1
        self.asked = 0
        self.metrics = Metrics()
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def read(self) -> Snapshot | None:
        """Answer when the process goes on."""
        self.asked += 1
        await self.goes_on.wait()
        return self.metrics.read()

    def replace(self) -> None:
        """Start again, from zero."""
        self.generation += 1
        self.metrics = Metrics()


def samples(page: bytes) -> Mapping[str, float]:
    """Return the samples of a page by name and values of labels."""
    return {
        " ".join((sample.name, *(sample.labels[name] for name in sorted(sample.labels)))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def _call(worker: Worker, times: int = 1) -> None:
    for _ in range(times):
        worker.metrics.call("m", "OK", 0.02)


@pytest.fixture
def workers() -> list[Worker]:
    return [Worker(), Worker()]


def _calls(page: bytes) -> float:
    found = samples(page)
    (value,) = [found[name] for name in found if name.startswith("headgate_calls_total")]
    return value


async def test_counters_and_histograms_are_added(workers: list[Worker]) -> None:
    _call(workers[0], 2)
    _call(workers[1], 3)
    workers[0].metrics.streams(1)
    workers[1].metrics.streams(4)
    found = samples(await Page(workers)())
    assert found["headgate_call_seconds_count m"] == 5
    assert found["headgate_call_seconds_sum m"] == pytest.approx(0.1)
    assert found["headgate_call_seconds_bucket 0.025 m"] == 5
    assert found["headgate_call_seconds_bucket 0.01 m"] == 0
    assert found["headgate_streams"] == 5
    assert (found["headgate_workers"], found["headgate_workers_answering"]) == (2, 2)
    assert (found["headgate_worker_calls_total 0"], found["headgate_worker_calls_total 1"]) == (2, 3)


async def test_gauges_that_are_no_sums(workers: list[Worker]) -> None:
    for worker, size, ready in zip(workers, (10, 7), (1.0, 0.0), strict=True):
        worker.metrics.store_bytes(size)
        worker.metrics.add_source(lambda ready=ready: [(catalogue.READY, (), ready)])
    found = samples(await Page(workers)())
    assert (found["headgate_store_bytes"], found["headgate_ready"]) == (10, 0)


async def test_no_counter_goes_backwards_when_a_worker_is_replaced(workers: list[Worker]) -> None:
    page = Page(workers)
    _call(workers[0], 5)
    _call(workers[1], 1)
    assert _calls(await page()) == 6
    for times in (1, 2):
        workers[0].replace()
        assert _calls(await page()) == 6 + times - 1
        _call(workers[0])
        found = await page()
        assert _calls(found) == 6 + times
        assert samples(found)["headgate_call_seconds_count m"] == 6 + times


async def test_a_worker_that_hangs_delays_a_scrape_only_a_moment(workers: list[Worker]) -> None:
    """Its counters stay, its gauges are left out, and it is asked once however often the page is read."""
    page = Page(workers, patience=0.1)
    _call(workers[0], 5)
    workers[0].metrics.streams(2)
    await page()
    workers[0].goes_on.clear()
    for _ in range(3):
        found = await page()
        assert _calls(found) == 5
        assert "headgate_streams" not in samples(found)
        assert samples(found)["headgate_workers_answering"] == 1
    assert workers[0].asked == 2
    _call(workers[0])
    workers[0].goes_on.set()
    await page()
    assert _calls(await page()) == 6


async def test_a_worker_that_is_replaced_while_it_hangs(workers: list[Worker]) -> None:
    page = Page(workers, patience=0.1)
    _call(workers[0], 5)
    await page()
    workers[0].goes_on.clear()
    await page()
    workers[0].replace()
    workers[0].goes_on.set()
    await page()
    _call(workers[0], 2)
    assert _calls(await page()) == 7


async def test_scrapes_at_the_same_time_ask_once(workers: list[Worker]) -> None:
    pages = await asyncio.gather(*(one() for one in [Page(workers)] * 5))
    assert len(set(pages)) == 1
    assert workers[0].asked == 1


@pytest.mark.parametrize("fault", [ConnectionRefusedError, TimeoutError])
async def test_envoys_text_is_added_if_envoy_answers(workers: list[Worker], fault: type[OSError]) -> None:
    fails = False

    async def envoy() -> bytes:
        if fails:
            raise fault
        return b"# TYPE envoy_server_live gauge\nenvoy_server_live 1\n"

    page = Page(workers, further=envoy)
    found = samples(await page())
    assert (found["envoy_server_live"], found["headgate_envoy_answering"]) == (1, 1)
    fails = True
    found = samples(await page())
    assert "envoy_server_live" not in found
    assert found["headgate_envoy_answering"] == 0


async def test_an_envoy_that_hangs(workers: list[Worker]) -> None:
    async def envoy() -> bytes:
        await asyncio.Event().wait()
        return b""

    found = samples(await Page(workers, further=envoy, patience=0.1)())
    assert found["headgate_envoy_answering"] == 0


async def test_the_line_between_two_processes() -> None:
    metrics = Metrics()
    metrics.call('m"\\\n', "OK", 0.02)
    line = Line()
    answer(os.dup(line.descriptor), metrics.read)
    line.sent()
    first, second = await line.read(), await line.read()
    assert first is not None
    assert second is not None
    assert set(first) == set(second) == set(metrics.read())
    assert first["headgate_calls"] == {('m"\\\n', "OK"): 1}
    assert text(first).count(b'method="m\\"\\\\\\n"') > 2
    line.close()


async def test_a_line_whose_process_has_ended() -> None:
    line = Line()
    line.sent()  # the only descriptor of the other end
    assert await line.read() is None
    line.close()


def test_only_so_many_workspaces_are_named() -> None:
    metrics = Metrics(workspaces=2)
    for workspace in ("a", "b", "c", "d", "a"):
        metrics.workspace_events(workspace, {"accepted": 2})
    assert metrics.read()["headgate_workspace_events"] == {
        ("a", "accepted"): 4,
        ("b", "accepted"): 2,
        ("_other", "accepted"): 4,
    }
    none = Metrics()
    none.workspace_events("a", {"accepted": 1})
    assert "headgate_workspace_events" not in none.read()


def test_of_many_destinations_those_that_are_furthest_behind() -> None:
    metrics = Metrics()
    metrics.destinations({f"d{number:03}": (0, number, 0) for number in range(150)})
    shown = metrics.read()["headgate_destination_lag_seconds"]
    assert sorted(shown) == [(f"d{number:03}",) for number in range(50, 150)]
    metrics.destinations({"d1": (1, 2, 3)})
    assert metrics.read()["headgate_destination_set_aside"] == {("d1",): 3}


def test_events_by_status_and_reason() -> None:
    metrics = Metrics()
    metrics.events({"accepted": 3, "rejected": 2}, {("rejected", "MISSING_FIELD"): 2})
    metrics.events({"accepted": 1, "aborted": 4}, {("aborted", "BATCH_ABORTED"): 4})
    assert metrics.read()["headgate_events"] == {
        ("accepted", ""): 4,
        ("rejected", "MISSING_FIELD"): 2,
        ("aborted", "BATCH_ABORTED"): 4,
    }


def test_a_source_that_fails_is_left_out() -> None:
    metrics = Metrics()
    metrics.add_source(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    metrics.call("m", "OK", 1)
    assert "headgate_calls" in metrics.read()
