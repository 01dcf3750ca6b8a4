"""The measurements as data: scenarios of loads that take turns, and their ratios."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple


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
    overload: bool = False
    """Whether the clock stops when the first caller has nothing left to send: after that there are too few callers."""

    def times(self, times: int) -> "Load":
        """Return the load with this many times the callers, as an overload."""
        return replace(self, callers=times * self.callers, overload=True)

    def particulars(self) -> list[str]:
        """Return its differences from new events of one workspace that are sent as fast as they are answered."""
        differences = {
            f"{self.duplicates:.0%} duplicates": self.duplicates,
            f"{self.workspaces:,} workspaces": self.workspaces > 1,
            "half of the calls in one": self.hot,
            f"at {self.pace:.0%} of the peak": self.pace,
            "honouring RetryInfo": self.overload,
        }
        return [text for text, applies in differences.items() if applies]


class Ratio(NamedTuple):
    """A comparison, round by round, of the best of some loads with the best of others, and its target."""

    name: str
    over: Sequence[Load]
    under: Sequence[Load]
    target: float | None = None


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
    patience: float = 600.0
    """Seconds after which no further round begins, so that a busy machine makes fewer rounds and not a longer run."""
    rows: int = 0
    """Events in the table before the scenario, in the one workspace that the limit and the product share then."""
    workers: int = 2  # what `auto` is on two processors


MOST_MIB = 300
"""The most resident memory of a server process under overload."""
_LIMITS = {Store.POSTGRESQL: (1_000, 2_000, 4_000), Store.SQLITE: (1_000, 4_000, 8_000)}
"""The sizes at which each limit is fastest: it is slower below and no faster above."""
_HOUSEFUL = 20_000
"""Events of one workspace that may wait in a server process."""
_FULL = Load(By.GRPC, 100, 32)
"""Enough callers to fill every group; more would only wait longer. `_WIDE` is the same with 1,000 events."""
_WIDE = Load(By.GRPC, 1_000, 8)
_WAYS = (By.GRPC, By.GHZ, By.REST)


def quick() -> list[Scenario]:
    """Return the scenarios with the main ratios, which run in less than two minutes."""
    postgresql, sqlite = _core(Store.POSTGRESQL, (32, 64), (4_000,)), _core(Store.SQLITE, (32,), (4_000,))
    return [replace(postgresql, seconds=0.8, patience=40.0), replace(sqlite, seconds=0.8, patience=20.0)]


def everything() -> list[Scenario]:
    """Return all scenarios."""
    made = []
    for store in Store:
        made.append(replace(_core(store, (8, 16, 32, 64), _LIMITS[store]), rounds=5))
        made += [_overload(store), _shapes(store), _latency(store), _content(store)]
        made += [_growth(store, rows) for rows in (200_000, 10_000_000)]
    return made


def _core(store: Store, callers: tuple[int, ...], groups: tuple[int, ...]) -> Scenario:
    limits, batches = [Load(By.LIMIT, size) for size in groups], [replace(_FULL, callers=count) for count in callers]
    rest, ghz, flood = replace(_FULL, by=By.REST), replace(_FULL, by=By.GHZ), _FULL.times(5)
    ratios = [
        Ratio(f"gRPC, 100 a batch ÷ the limit, {store}", batches, limits, 0.60),
        Ratio(f"REST ÷ gRPC, 100 a batch, {store}", (rest,), batches, 0.70),
        Ratio(f"goodput of 5 times the callers that saturate ÷ peak, 100 a batch, {store}", (flood,), batches, 0.90),
    ]
    if store is Store.POSTGRESQL:
        peer, single, empty = Load(By.PEER, 100, 16), Load(By.GRPC, 1, 64), Load(By.EMPTY, 1, 64)
        ratios.append(Ratio(f"gRPC, 100 a batch ÷ FastAPI + SQLAlchemy, {store}", batches, (peer,), 8))
        ratios.append(Ratio(f"single events, 64 callers ÷ the empty RPC, {store}", (single,), (empty,), 0.50))
    return _of_ratios("core", store, ratios, ghz)


def _overload(store: Store) -> Scenario:
    ratios = []
    for times, load in ((5, _FULL), (25, _FULL), (5, _WIDE)):
        name = f"goodput of {times} times the callers that saturate ÷ peak, {load.batch:,} a batch, {store}"
        ratios.append(Ratio(name, (load.times(times),), (load.times(1),), 0.90))
    return _of_ratios("overload", store, ratios)


def _shapes(store: Store) -> Scenario:
    kinds = [(by, batch, callers) for batch in (1, 10, 100, 1_000) for by in _WAYS for callers in (1, 8, 64)]
    loads = (Load(*kind, overload=kind[0] is By.GRPC and kind[1] * kind[2] > _HOUSEFUL) for kind in kinds)
    return Scenario(f"shapes-{store.lower()}", store, tuple(loads))


def _latency(store: Store) -> Scenario:
    kinds = [(by, batch) for batch in (1, 100) for by in (By.GRPC, By.HTTP)]
    loads = tuple(Load(by, batch, 64, pace=pace) for by, batch in kinds for pace in (0.0, 0.5))
    return Scenario(f"latency-{store.lower()}", store, loads, seconds=3.0)


def _content(store: Store) -> Scenario:
    some, every, many = replace(_FULL, duplicates=0.1), replace(_FULL, duplicates=1.0), replace(_FULL, workspaces=1_000)
    small, one = Load(By.GRPC, 10, 64, workspaces=1_000), Load(By.GRPC, 10, 64)
    ratios = [Ratio(f"{load.particulars()[0]}, {store}", (load,), (_FULL,)) for load in (some, every)]
    for load, base in ((many, _FULL), (small, one), (replace(small, hot=True), one)):
        name = f"{', '.join(load.particulars())} ÷ one, {load.batch} a batch, {store}"
        ratios.append(Ratio(name, (load,), (base,), 0.70))
    return _of_ratios("content", store, ratios)


def _growth(store: Store, rows: int) -> Scenario:
    batches, limits = (_FULL, replace(_FULL, callers=64)), [Load(By.LIMIT, size) for size in _LIMITS[store][-2:]]
    ratio = Ratio(f"gRPC, 100 a batch ÷ the limit, {store} with {rows:,} events", batches, limits, 0.60)
    return replace(_of_ratios(f"growth-{rows // 1000}k", store, [ratio]), seconds=4.0, rows=rows)


def _of_ratios(kind: str, store: Store, ratios: list[Ratio], *others: Load) -> Scenario:
    loads = dict.fromkeys(load for ratio in ratios for load in (*ratio.under, *ratio.over))
    return Scenario(f"{kind}-{store.lower()}", store, (*loads, *others), tuple(ratios))
