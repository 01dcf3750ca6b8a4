"""After a panic in the compiled core the Python code does the work.

PyO3 turns an error of its class `PanicException`, raised by Python within a call, into a panic of Rust at that place.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate_server.core import compiled, ledger
from headgate_server.core.model import (
    Submission,
)
from headgate_server.core.settle import Settlement
from tests.native import twins
from tests.support.drafts import draft
from tests.unit import test_compiled as failing

pytestmark = twins.needs_core

_PANICKED = "headgate_native panicked"


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
        twins.core().decode_events([1], [bytes(16)])
    for kind in BaseException.__subclasses__():
        if kind.__name__ == "PanicException":
            try:
                twins.core().decode_events(_Panics([b""], kind), [bytes(16)])
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
                return twins.core().decode_body(first, rest[0], lambda count: _Panics([[]], _panic())[0])
            return getattr(twins.core(), name)(_Panics(first, _panic(), self._at), *rest)

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
        twins.core().panic()
    assert re.fullmatch(r"headgate_native: panic at src/python/mod\.rs:\d+:\d+\n", capfd.readouterr().err)
