"""The measurements as data: scenarios of loads that take turns, and their ratios."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from headgate_server.core.compiled import in_use


class By(StrEnum):
    """The sender of a load and its protocol, with the name in the table."""

    LIMIT = "the limit"
    GRPC = "gRPC, lean driver"
    GHZ = "gRPC, ghz"
    REST = "REST through Envoy, wrk"
    HTTP = "REST through Envoy, httpx"
    EMPTY = "the empty RPC, lean driver"
    PEER = "FastAPI + SQLAlchemy, wrk"


class Store(StrEnum):
    """Where events are stored."""

    POSTGRESQL = "PostgreSQL"
    SQLITE = "SQLite"


@dataclass(frozen=True, slots=True)
class Load:
    """One row of the table."""

    by: By
    batch: int
    """Events of a call, or of a transaction of the limit."""
    callers: int = 1
    duplicates: float = 0.0
    """The share of the events that were stored before, with the same content under the same key."""
    workspaces: int = 1
    hot: bool = False
    """Whether every second call goes to the first workspace. Otherwise all take turns."""
    pace: float = 0.0
    """The share of the same sender's highest rate, as a fixed rate; 0: a caller sends again when it is answered."""
    rate_of: By | None = None
    """The sender whose highest rate counts instead, so that two senders can be compared at the same rate."""
    overload: bool = False
    """Whether callers stop when the first one has nothing left to send, also those that wait after a refusal."""
    pure: bool = False
    """Whether the product works without the compiled core."""

    def times(self, times: int) -> "Load":
        """Return the load with this many times the callers, as an overload."""
        return replace(self, callers=times * self.callers, overload=True)

    def particulars(self) -> list[str]:
        """Return its differences from new events of one workspace that are sent as fast as they are answered."""
        differences = {
            f"{self.duplicates:.0%} duplicates": self.duplicates,
            f"{self.workspaces:,} workspaces": self.workspaces > 1,
            "half of the calls in one": self.hot,
            f"at {self.pace:.0%} of the peak": self.pace and not self.rate_of,
            f"at {self.pace:.0%} of the peak of {self.rate_of}": self.pace and self.rate_of,
            "honouring RetryInfo": self.overload,
            "pure Python": self.pure,
        }
        return [text for text, applies in differences.items() if applies]


class Ratio(NamedTuple):
    """A comparison, round by round, of the best of some loads with the best of others, and its target."""

    name: str
    over: Sequence[Load]
    under: Sequence[Load]
    target: float | None = None
    of_p99: bool = False
    """Whether it compares the loads' p99, and the target is the most. Otherwise it compares events/s, and the least."""

    @property
    def said(self) -> str:
        """The target in words; empty without one."""
        return "" if self.target is None else f"{'at most' if self.of_p99 else 'at least'} {self.target:g}"


@dataclass(frozen=True)
class Scenario:
    """Loads that take turns on the same parts, round by round. Every round reverses the order."""

    name: str
    """For `--only`."""
    store: Store
    loads: tuple[Load, ...]
    ratios: tuple[Ratio, ...] = ()
    rounds: int = 3
    seconds: float = 2.0
    """The time of one turn, about."""
    patience: float = 90.0
    """Seconds after which no further round begins, so that a busy machine makes fewer rounds and not a longer run."""
    rows: int = 0
    """Events in the table before the scenario, in the one workspace that the limit and the product share then."""
    workers: int = 2  # what `auto` is on two processors

    @property
    def left_out(self) -> bool:
        """Whether it compares the compiled core with Python alone, and the core is not in use."""
        return any(load.pure for load in self.loads) and not in_use()


MOST_MIB = 250
"""The most resident memory of a server process under overload."""
_OF_LIMIT = {Store.POSTGRESQL: (0.50, 0.62), Store.SQLITE: (0.38, 0.45)}
"""The least share of the limit, in Python alone and with the compiled core. `_OF_PEER` is the same for the peer."""
_OF_PEER = (6, 8)
_LIMITS = {Store.POSTGRESQL: (2_000, 4_000), Store.SQLITE: (4_000, 8_000)}
"""The sizes at which each limit is fastest: it is slower below and no faster above."""
_HOUSEFUL = 20_000
"""Events of one workspace that may wait in a server process."""
_FULL = Load(By.GRPC, 100, 32)
"""Enough callers to fill every group; more would only wait longer. `_WIDE` is the same with 1,000 events."""
_WIDE = Load(By.GRPC, 1_000, 8)
_WAYS = (By.GRPC, By.GHZ, By.REST)


def quick() -> list[Scenario]:
    """Return the scenarios with the main ratios, which run in less than two minutes."""
    postgresql, sqlite = _core(Store.POSTGRESQL, (32, 64, 128), (4_000,)), _core(Store.SQLITE, (32,), (4_000,))
    return [replace(postgresql, seconds=0.8, patience=40.0), replace(sqlite, seconds=0.8, patience=20.0)]


def everything() -> list[Scenario]:
    """Return the scenarios of `all`, which run in about half an hour."""
    made = []
    for store in Store:
        made.append(replace(_core(store, (16, 32, 64, 128), _LIMITS[store]), rounds=4, patience=200.0))
        made += [_compiled(store), _overload(store), _shapes(store), _latency(store), _content(store)]
        made += [_growth(store, rows) for rows in (200_000, 10_000_000)]
    return made


def by_request() -> list[Scenario]:
    """Return the scenarios that only `--only` runs, because they take hours and most of a disk."""
    return [_growth(store, 100_000_000) for store in Store]


def _core(store: Store, callers: tuple[int, ...], groups: tuple[int, ...]) -> Scenario:
    limits, flood = [Load(By.LIMIT, size) for size in groups], _FULL.times(5)
    batches, rest = ([replace(_FULL, by=by, callers=count) for count in callers] for by in (By.GRPC, By.REST))
    ratios = [
        Ratio(f"gRPC, 100 a batch ÷ the limit, {store}", batches, limits, _OF_LIMIT[store][in_use()]),
        Ratio(f"REST ÷ gRPC, 100 a batch, {store}", rest, batches, 0.85),
        Ratio(f"goodput of 5 times the callers that saturate ÷ peak, 100 a batch, {store}", (flood,), batches, 0.93),
    ]
    if store is Store.POSTGRESQL:
        peer, single, empty = Load(By.PEER, 100, 16), Load(By.GRPC, 1, 64), Load(By.EMPTY, 1, 64)
        ratios.append(Ratio(f"gRPC, 100 a batch ÷ FastAPI + SQLAlchemy, {store}", batches, (peer,), _OF_PEER[in_use()]))
        ratios.append(Ratio(f"single events, 64 callers ÷ the empty RPC, {store}", (single,), (empty,), 0.65))
    return _of_ratios("core", store, ratios, replace(_FULL, by=By.GHZ))


def _compiled(store: Store) -> Scenario:
    loads = [replace(_FULL, by=by, callers=64) for by in (By.GRPC, By.REST)]
    pure, limits = [replace(load, pure=True) for load in loads], [Load(By.LIMIT, size) for size in _LIMITS[store]]
    ratios = [Ratio(f"pure Python: gRPC, 100 a batch ÷ the limit, {store}", pure[:1], limits, _OF_LIMIT[store][False])]
    for one, other in zip(loads, pure, strict=True):
        ratios.append(Ratio(f"with the core ÷ pure Python, {one.by}, 100 a batch, {store}", (one,), (other,), 1.45))
    return replace(_of_ratios("compiled", store, ratios), rounds=2)


def _overload(store: Store) -> Scenario:
    ratios = []
    for times, load in ((5, _FULL), (25, _FULL), (5, _WIDE)):
        name = f"goodput of {times} times the callers that saturate ÷ peak, {load.batch:,} a batch, {store}"
        ratios.append(Ratio(name, (load.times(times),), (load.times(1),), 0.93))
    return replace(_of_ratios("overload", store, ratios), rounds=2)


def _shapes(store: Store) -> Scenario:
    kinds = [(by, batch, callers) for batch in (1, 10, 100, 1_000) for by in _WAYS for callers in (1, 64)]
    loads = (Load(*kind, overload=kind[0] is By.GRPC and kind[1] * kind[2] > _HOUSEFUL) for kind in kinds)
    # There are no ratios, so one round is enough to see the shape.
    return Scenario(f"shapes-{store.lower()}", store, tuple(loads), rounds=1)


def _latency(store: Store) -> Scenario:
    kinds = [(by, batch) for batch in (1, 100) for by in (By.GRPC, By.HTTP)]
    loads = [Load(by, batch, 64, pace=pace) for by, batch in kinds for pace in (0.0, 0.5)]
    lone = [Load(by, batch) for by, batch in kinds]
    single, empty = Load(By.GRPC, 1, 64, pace=0.5), Load(By.EMPTY, 1, 64, pace=0.5, rate_of=By.GRPC)
    name = f"p99 of a single event at half load ÷ p99 of the empty RPC at the same rate, {store}"
    ratio = Ratio(name, (single,), (empty,), 4, of_p99=True)
    # The highest rates come first, because the others are shares of them.
    return Scenario(f"latency-{store.lower()}", store, (*loads, empty, *lone), (ratio,))


def _content(store: Store) -> Scenario:
    some, every, many = replace(_FULL, duplicates=0.1), replace(_FULL, duplicates=1.0), replace(_FULL, workspaces=1_000)
    small, one = Load(By.GRPC, 10, 64, workspaces=1_000), Load(By.GRPC, 10, 64)
    ratios = [Ratio(f"{load.particulars()[0]}, {store}", (load,), (_FULL,)) for load in (some, every)]
    for load, base in ((many, _FULL), (small, one), (replace(small, hot=True), one)):
        name = f"{', '.join(load.particulars())} ÷ one, {load.batch} a batch, {store}"
        ratios.append(Ratio(name, (load,), (base,), 0.70))
    return replace(_of_ratios("content", store, ratios), rounds=2)


def _growth(store: Store, rows: int) -> Scenario:
    batches, limits = (_FULL, replace(_FULL, callers=64)), [Load(By.LIMIT, size) for size in _LIMITS[store]]
    name = f"gRPC, 100 a batch ÷ the limit, {store} with {rows:,} events"
    ratio = Ratio(name, batches, limits, _OF_LIMIT[store][in_use()])
    return replace(_of_ratios(f"growth-{rows // 1000}k", store, [ratio]), rounds=2, seconds=3.0, rows=rows)


def _of_ratios(kind: str, store: Store, ratios: list[Ratio], *others: Load) -> Scenario:
    loads = dict.fromkeys(load for ratio in ratios for load in (*ratio.under, *ratio.over))
    return Scenario(f"{kind}-{store.lower()}", store, (*loads, *others), tuple(ratios))
