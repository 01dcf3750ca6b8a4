"""Ends a test that hangs, and says where: the stacks of all threads and of the tasks of their event loops.

Each phase of a test (fixtures, body, clean-up) has a time of its own, so that what a hung test started is still ended
by its fixtures. `pytest -o longest_phase=0` takes the limit away. The setting `faulthandler_timeout` is for what Python
cannot interrupt, and ends the worker.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from _pytest.outcomes import OutcomeException

from tests.support.stacks import stacks

SETTING = "longest_phase"

_AGAIN = 30.0
"""Seconds after which an interrupted phase that is still there is interrupted again: the first exception may have
reached a callback or a background task, where it ends nothing."""


class TooLong(OutcomeException):
    """A test was not done in time. Not an `Exception`: neither the test nor a library takes it for a failed call. An
    outcome, so that all other fixtures are still cleaned up.
    """


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting."""
    parser.addini(SETTING, "the most seconds for a phase of a test; 0: no limit", default="240")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Limit the time of a test's fixtures."""
    with _limited(item, "set-up"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Limit the time of a test's body."""
    with _limited(item, "body"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Limit the time of a test's clean-up."""
    with _limited(item, "clean-up"):
        return (yield)


@contextmanager
def _limited(item: pytest.Item, phase: str) -> Iterator[None]:
    """Raise `TooLong` in the block when its time is over. The block runs in the main thread."""
    seconds = float(item.config.getini(SETTING))

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"the {phase} of {item.nodeid} was not done within {seconds:g} s\n{stacks(frame)}")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
