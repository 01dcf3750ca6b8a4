"""The compiled core, if it is installed: faster twins of a few functions of this server. Pure.

`headgate_native` (the folder `native/`) is a package of its own. Where it is missing, refused, turned off by
`HEADGATE_PURE=1`, or fails, the functions here return None, and the caller runs the twin in Python, which is the
reference. docs/design/native.md says which function has which twin, and what the compiled one leaves to Python.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any, NamedTuple, Protocol, TypeVar

from headgate_server.core.model import NATIVE, Draft, Link, Mismatch, Outcome, Problem, Status, StoredEvent
from headgate_server.core.types import Dedupe, EventHash, Salt, WorkspaceId

SEAM = 2
"""The version of the functions below. A core that was built for other ones is refused."""
PURE = "HEADGATE_PURE"
"""The environment variable that turns the compiled core off, unless it is empty or 0."""

_Result = TypeVar("_Result")

Run = tuple[list[Outcome], list[StoredEvent], EventHash]
"""The outcomes of a run of slots, the new rows, and the hash of the last link."""


class Decoded(NamedTuple):
    """Events that were decoded: a draft at each position, or None at those in `left`, which Python decodes."""

    slots: list[Any]
    left: Sequence[int]


class Text(NamedTuple):
    """An event of a JSON body that Python decodes: its position, its place in the body, and its salt."""

    position: int
    start: int
    end: int
    salt: Salt


class DecodedBody(NamedTuple):
    """A JSON batch that was decoded. Python decodes the texts in `left`."""

    slots: list[Any]
    left: Sequence[Text]
    atomic: bool
    validate_only: bool


class Core(Protocol):
    """The functions of the compiled core. They take and return what their namesakes below do."""

    def decode_events(self, serialized: Sequence[bytes], salts: Sequence[Salt]) -> tuple[list[Any], list[int]]: ...

    def decode_texts(self, texts: Sequence[bytes], salts: Sequence[Salt]) -> tuple[list[Any], list[int]]: ...

    def decode_body(
        self, body: bytes, most: int, salts: Callable[[int], list[Salt]]
    ) -> tuple[list[Any], list[tuple[int, int, int, Salt]], bool, bool] | None: ...

    def decide_run(
        self,
        slots: Sequence[Draft | Problem],
        start: int,
        randomness: bytes,
        known: dict[Dedupe, Link],
        workspace_id: WorkspaceId,
        sequence: int,
        previous: EventHash,
        clock: int,
        most: int,
    ) -> Run: ...

    def batch_message(self, outcomes: Sequence[Outcome], lines: Sequence[int]) -> bytes | None: ...

    def batch_json(self, outcomes: Sequence[Outcome], lines: Sequence[int]) -> bytes | None: ...

    def stream_results(self, outcomes: Sequence[Outcome]) -> bytes | None: ...

    def copy_rows(self, rows: Sequence[StoredEvent]) -> list[bytes] | None: ...


class Found(NamedTuple):
    """The compiled core, or None, and a line that says which code is in use and why."""

    core: Core | None
    said: str
    refused: bool = False
    """Whether a core is installed and cannot be used."""


def find(environ: Mapping[str, str], expected: str | None = None) -> Found:
    """Look for the compiled core of this server's version; `expected` is another one, for tests."""
    if environ.get(PURE, "") not in ("", "0"):
        return Found(None, f"pure Python, because {PURE} is set")
    try:
        module = importlib.import_module("headgate_native")
    except ModuleNotFoundError:
        return Found(None, "pure Python; headgate_native is not installed")
    except ImportError as error:
        return Found(None, f"pure Python; headgate_native cannot be loaded: {error}", refused=True)
    wanted = (expected or version(), SEAM)
    found = (getattr(module, "VERSION", None), getattr(module, "SEAM", None))
    if found != wanted:
        return Found(
            None,
            f"pure Python; headgate_native is of version {found[0]} (seam {found[1]}) and this server of version "
            f"{wanted[0]} (seam {wanted[1]}): install the core again (make native)",
            refused=True,
        )
    return Found(
        module.Core(Draft, StoredEvent, Link, Outcome, Status.ACCEPTED, Status.DUPLICATE, Mismatch.CONFLICT, NATIVE),
        f"compiled, headgate_native {found[0]}",
    )


def version() -> str:
    """Return this server's version, "unknown" if it is not installed."""
    try:
        return metadata.version("headgate")
    except metadata.PackageNotFoundError:  # run from a folder that was not installed
        return "unknown"


found = find(os.environ)
"""What was found when this process started."""

failures = 0
"""How often the compiled core failed in this process. Python did its work then."""


def _ignore(error: Exception) -> None:
    """Do nothing."""


on_failure: Callable[[Exception], None] = _ignore
"""Called with each failure, so that it is logged. The wiring of a server sets it."""

_core = found.core


def in_use() -> bool:
    """Whether the compiled core is used."""
    return _core is not None


@contextmanager
def using(core: Core | None) -> Iterator[None]:
    """Use another core, or none, for the tests that compare them."""
    global _core
    before, _core = _core, core
    try:
        yield
    finally:
        _core = before


def decode_events(serialized: Sequence[bytes], salts: Sequence[Salt]) -> Decoded | None:
    """Decode serialized events. The twin is `rpc.decode.proto_event`."""
    return _tried(lambda core: Decoded(*core.decode_events(serialized, salts)))


def decode_texts(texts: Sequence[bytes], salts: Sequence[Salt]) -> Decoded | None:
    """Decode JSON texts, an event each. The twin is `validate.native_json`, after `jsonbody.read_one`."""
    return _tried(lambda core: Decoded(*core.decode_texts(texts, salts)))


def decode_body(body: bytes, most: int, salts: Callable[[int], list[Salt]]) -> DecodedBody | None:
    """Decode a JSON body with a batch of at most `most` events. None means that Python decodes all of it. The twin is
    `rpc.decode.json_batch`.
    """
    decoded = _tried(lambda core: core.decode_body(body, most, salts))
    if decoded is None:
        return None
    slots, left, atomic, validate_only = decoded
    return DecodedBody(slots, [Text(*each) for each in left], atomic, validate_only)


def decide_run(
    slots: Sequence[Draft | Problem],
    start: int,
    randomness: bytes,
    known: dict[Dedupe, Link],
    workspace_id: WorkspaceId,
    sequence: int,
    previous: EventHash,
    clock: int,
    most: int,
) -> Run | None:
    """Decide a run of ordinary drafts. The twin is `settle.decide_run`. If it fails, `known` is as before."""
    return _tried(
        lambda core: core.decide_run(slots, start, randomness, known, workspace_id, sequence, previous, clock, most)
    )


def batch_message(outcomes: Sequence[Outcome], lines: Sequence[int]) -> bytes | None:
    """Return a serialized BatchIngestResponse. The twin is `wire.batch_message`."""
    return _tried(lambda core: core.batch_message(outcomes, lines))


def batch_json(outcomes: Sequence[Outcome], lines: Sequence[int]) -> bytes | None:
    """Return REST's answer to a batch. The twin is `wire.batch_json`."""
    return _tried(lambda core: core.batch_json(outcomes, lines))


def stream_results(outcomes: Sequence[Outcome]) -> bytes | None:
    """Return the results of a serialized StreamIngestResponse. The twin is `wire.add_results`."""
    return _tried(lambda core: core.stream_results(outcomes))


def copy_rows(rows: Sequence[StoredEvent]) -> list[bytes] | None:
    """Return rows in PostgreSQL's binary format for COPY, in pieces. None also if a value is not of its column's type.
    The twin is asyncpg's `copy_records_to_table`.
    """
    return _tried(lambda core: core.copy_rows(rows))


def _tried(work: Callable[[Core], _Result]) -> _Result | None:
    """Return a result of the compiled core, None without one. If it fails, the caller goes on in Python, which raises
    its own error if the values are wrong.
    """
    global failures
    if _core is None:
        return None
    try:
        return work(_core)
    except MemoryError:
        raise  # a run of decisions may have stopped half-way
    except Exception as error:
        failures += 1
        on_failure(error)
        return None
