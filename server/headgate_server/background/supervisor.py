"""Jobs: background work with a name, kept running by one supervisor."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from headgate_server.process.causes import told
from headgate_server.process.metrics import Metrics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Background work: its name, and the function that runs it until it is cancelled.

    `run` is called again after it has raised. If it returns, the job is done.
    """

    name: str
    run: Callable[[], Awaitable[None]]


class JobState(StrEnum):
    """The present state of a job."""

    RUNNING = "running"
    BACKING_OFF = "backing_off"
    """It raised, and is started again after a pause."""
    DONE = "done"
    """It returned, or the supervisor was stopped."""


@dataclass(slots=True)
class JobStatus:
    """The status of a job, which operators see."""

    name: str
    state: JobState = JobState.DONE
    failures: int = 0
    """How often it has raised since the process started."""
    last_error: str = ""
    """The class of the newest error. The error's text may quote an event, so it is only in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """How soon a job that raised is started again. Times in seconds."""

    first_pause: float = 0.5
    """The cause of a single failure is most often a database that restarts."""
    growth: float = 2.0
    longest_pause: float = 30.0
    """Even after a long outage a job runs again within half a minute."""
    calm: float = 60.0
    """A job that ran this long did not fail at its start: reset the pause."""

    def after(self, pause: float, ran: float) -> float:
        """Return the next pause. The previous pause took `pause` seconds, 0 before the first run, and the run `ran`
        seconds.
        """
        if not pause or ran >= self.calm:
            return self.first_pause
        return min(pause * self.growth, self.longest_pause)


class Supervisor:
    """Keeps jobs running: it starts them, restarts those that raise, counts failures, and shows each job's status.

    It runs on one event loop. A job MUST end when it is cancelled.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        back_off: BackOff | None = None,
        timer: Callable[[], float] = time.monotonic,
    ):
        self._metrics = metrics
        self._back_off = back_off or BackOff()
        self._timer = timer
        self._statuses: dict[str, JobStatus] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, jobs: Iterable[Job]) -> None:
        """Start these jobs. Each must have its own name."""
        for job in jobs:
            if job.name in self._statuses:
                raise ValueError(f"there is a job {job.name!r} already")
            self._statuses[job.name] = JobStatus(job.name)
            self._tasks.append(asyncio.create_task(self._keep(job), name=job.name))

    async def stop(self) -> None:
        """Cancel every job, and return when all have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def statuses(self) -> Sequence[JobStatus]:
        """Return the status of each job, in the order of their start."""
        return tuple(self._statuses.values())

    async def _keep(self, job: Job) -> None:
        status = self._statuses[job.name]
        pause = 0.0
        try:
            while True:
                started = self._timer()
                self._set(status, JobState.RUNNING)
                try:
                    return await job.run()
                except Exception as error:
                    pause = self._back_off.after(pause, self._timer() - started)
                    self._failed(status, error, pause)
                await asyncio.sleep(pause)
        finally:
            self._set(status, JobState.DONE)

    def _failed(self, status: JobStatus, error: Exception, pause: float) -> None:
        status.failures += 1
        status.last_error = type(error).__name__
        self._set(status, JobState.BACKING_OFF)
        self._metrics.job_failed(status.name)
        log.error("job_failed", job=status.name, failures=status.failures, restart_in=pause, **told(error))

    def _set(self, status: JobStatus, state: JobState) -> None:
        status.state = state
        self._metrics.job_running(status.name, running=state is JobState.RUNNING)
