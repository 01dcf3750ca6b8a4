"""Jobs are started, started again when they raise, counted, shown, and ended."""

import asyncio

import pytest
from structlog.testing import capture_logs

from headgate_server.background.supervisor import BackOff, Job, JobState, Supervisor
from headgate_server.core.errors import Unavailable
from headgate_server.process.metrics import Metrics
from tests.support.waiting import until

AT_ONCE = BackOff(first_pause=0.0, longest_pause=0.0)
NEVER = BackOff(first_pause=3600.0, longest_pause=3600.0)


def counted(metrics: Metrics, name: str, job: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"job": job})


async def forever() -> None:
    await asyncio.Event().wait()


async def broken() -> None:
    raise RuntimeError("a secret")


@pytest.mark.parametrize("error", [RuntimeError("x"), OSError(28, "full"), KeyError("x"), TimeoutError()])
async def test_a_job_that_raises_anything_is_started_again_and_the_others_go_on(error: Exception) -> None:
    runs = 0

    async def failing() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise error
        await forever()

    metrics = Metrics()
    supervisor = Supervisor(metrics, back_off=AT_ONCE)
    supervisor.start([Job("failing", failing), Job("calm", forever)])

    async def restarted() -> bool:
        return runs == 3

    await until(restarted)
    failing_status, calm_status = supervisor.statuses()
    assert (failing_status.state, failing_status.failures) == (JobState.RUNNING, 2)
    assert failing_status.last_error == type(error).__name__
    assert (calm_status.state, calm_status.failures) == (JobState.RUNNING, 0)
    assert counted(metrics, "headgate_job_failures_total", "failing") == 2
    assert counted(metrics, "headgate_job_running", "failing") == 1
    await supervisor.stop()
    assert {status.state for status in supervisor.statuses()} == {JobState.DONE}
    assert counted(metrics, "headgate_job_running", "failing") == 0


@pytest.mark.parametrize("error", [Unavailable("The store is away."), RuntimeError("a bug")])
async def test_an_unreachable_store_is_logged_by_its_cause_and_a_bug_with_its_traceback(error: Exception) -> None:
    async def failing() -> None:
        raise error from ConnectionRefusedError(111, "refused")

    supervisor = Supervisor(Metrics(), back_off=NEVER)
    with capture_logs() as lines:
        supervisor.start([Job("failing", failing)])

        async def logged() -> bool:
            return bool(lines)

        await until(logged)
        await supervisor.stop()
    (line,) = lines
    assert (line["event"], line["job"], line["error"]) == ("job_failed", "failing", type(error).__name__)
    if isinstance(error, Unavailable):
        assert (line["reason"], line["cause"], line["errno"]) == (
            "STORE_UNAVAILABLE",
            "ConnectionRefusedError",
            "ECONNREFUSED",
        )
        assert "exc_info" not in line
    else:
        assert line["exc_info"] is error


async def test_a_job_that_waits_to_be_started_again_shows_it_and_can_be_stopped() -> None:
    supervisor = Supervisor(Metrics(), back_off=NEVER)
    supervisor.start([Job("broken", broken)])

    async def backing_off() -> bool:
        return supervisor.statuses()[0].state is JobState.BACKING_OFF

    await until(backing_off)
    assert "secret" not in str(supervisor.statuses())
    await asyncio.wait_for(supervisor.stop(), 5)


async def test_a_job_that_returns_is_done_and_not_started_again() -> None:
    runs = 0

    async def once() -> None:
        nonlocal runs
        runs += 1

    supervisor = Supervisor(Metrics(), back_off=AT_ONCE)
    supervisor.start([Job("once", once)])

    async def done() -> bool:
        return supervisor.statuses()[0].state is JobState.DONE and runs == 1

    await until(done)
    for _ in range(10):
        await asyncio.sleep(0)
    assert runs == 1
    await supervisor.stop()


async def test_stop_waits_for_what_a_job_does_at_its_end() -> None:
    ended = False

    async def tidy() -> None:
        nonlocal ended
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            ended = True

    supervisor = Supervisor(Metrics())
    supervisor.start([Job("tidy", tidy)])
    await asyncio.sleep(0)
    await supervisor.stop()
    assert ended


async def test_two_jobs_of_one_name_are_refused() -> None:
    supervisor = Supervisor(Metrics())
    with pytest.raises(ValueError, match="already"):
        supervisor.start([Job("one", forever), Job("one", forever)])
    await supervisor.stop()


def test_pauses_grow_to_a_bound_and_a_long_run_resets_them() -> None:
    back_off = BackOff(first_pause=1.0, growth=3.0, longest_pause=8.0, calm=60.0)
    assert back_off.after(0.0, 0.1) == 1.0
    assert back_off.after(1.0, 0.1) == 3.0
    assert back_off.after(3.0, 59.0) == 8.0
    assert back_off.after(8.0, 59.0) == 8.0
    assert back_off.after(8.0, 60.0) == 1.0
