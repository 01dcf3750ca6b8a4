"""What is measured, as data: scenarios of loads that take turns, and the ratios that they are for."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum


class By(StrEnum):
    """Who stores, and on which way. The value is what the table calls it."""

    LIMIT = "the limit"
    GRPC = "gRPC, lean driver"
    GHZ = "gRPC, ghz"
    REST = "REST through Envoy, wrk"
    HTTP = "REST through Envoy, lean driver"
    EMPTY = "the empty RPC, lean driver"
    PEER = "FastAPI + SQLAlchemy, lean driver"


class Store(StrEnum):
    """Where events are stored."""

    POSTGRESQL = "PostgreSQL"
    SQLITE = "SQLite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One row of the table."""

    by: By
    batch: int
    """Events of a call; of the limit, of a transaction."""
    callers: int = 1
    duplicates: float = 0.0
    """The share of events that are sent a second time."""
    workspaces: int = 1
    pace: float = 0.0
    """Events are sent at this share of the highest rate of the same sender and batch, whether or not earlier ones are
    answered; 0: a caller sends when it is answered."""
    patient: bool = False
    """Callers that are refused wait as long as they are told to, and send again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A comparison, round by round, of the best of some loads with the best of others."""

    name: str
    over: tuple[Load, ...]
    under: tuple[Load, ...]
    target: float | None = None
    """What it must reach at least; None where nothing is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Loads that take turns on the same parts, round by round, every round in the other order."""

    name: str
    """For `--only`."""
    title: str
    store: Store
    loads: tuple[Load, ...]
    ratios: tuple[Ratio, ...] = ()
    rounds: int = 3
    seconds: float = 2.0
    """How long one turn works, about."""
    patience: float = 600.0
    """Seconds after which no further round begins, so that a busy machine yields fewer rounds and not a longer wait."""
    rows: int = 0
    """Events that are there before, in the one workspace that the limit and the product then share."""
    memory_target: int | None = None
    """MiB that no server process may exceed under patient callers."""

    @property
    def workers(self) -> int:
        """Server processes: as many as this machine has processors, and only one can serve SQLite."""
        return 2 if self.store is Store.POSTGRESQL else 1

    def without(self, missing: Collection[By]) -> "Scenario":
        """Return it without the loads of these senders, and without the ratios that need them."""
        loads = tuple(load for load in self.loads if load.by not in missing)
        ratios = tuple(ratio for ratio in self.ratios if {*ratio.over, *ratio.under} <= set(loads))
        return replace(self, loads=loads, ratios=ratios)


_LIMITS = {Store.POSTGRESQL: (1_000, 2_000, 4_000), Store.SQLITE: (1_000, 4_000, 8_000)}
"""Where each limit flattens out: it is slower below and no faster above."""
_SATURATING = 32
"""Calls of 100 events that fill every group; more only wait longer."""
_SATURATING_WIDE = 8
"""The same, of 1,000 events."""
_MEMORY = 300
"""MiB that a server process may have resident under overload."""
_HOUSEFUL = 20_000
"""Events of one workspace that a server process lets wait; who brings more has to be patient."""


def quick() -> list[Scenario]:
    """Return what shows, in less than two minutes, what the benchmark is for."""
    return [
        replace(_core(Store.POSTGRESQL, callers=(_SATURATING, 64), groups=(4_000,)), patience=45.0),
        replace(_core(Store.SQLITE, callers=(_SATURATING,), groups=(4_000,)), patience=25.0),
    ]


def everything() -> list[Scenario]:
    """Return all scenarios."""
    return [scenario for store in Store for scenario in _of(store)]


def _of(store: Store) -> list[Scenario]:
    core = _core(store, callers=(8, 16, _SATURATING, 64), groups=_LIMITS[store])
    return [
        replace(core, rounds=5, seconds=2.0),
        _overload(store),
        _shapes(store),
        _latency(store),
        _content(store),
        _growth(store, 200_000),
        _growth(store, 10_000_000),
    ]


def _core(store: Store, *, callers: tuple[int, ...], groups: tuple[int, ...]) -> Scenario:
    """Return the scenario with the ratios that the service promises."""
    limits = _limits(groups)
    batches = tuple(Load(by=By.GRPC, batch=100, callers=count) for count in callers)
    rest, ghz = (Load(by=by, batch=100, callers=_SATURATING) for by in (By.REST, By.GHZ))
    flood = Load(by=By.GRPC, batch=100, callers=5 * _SATURATING, patient=True)
    loads = [*limits, *batches, rest, ghz, flood]
    ratios = [
        Ratio(name=f"gRPC, 100 a batch ÷ the limit, {store}", over=batches, under=limits, target=0.60),
        Ratio(name=f"REST ÷ gRPC, 100 a batch, {store}", over=(rest,), under=batches, target=0.70),
        _goodput(store, 5, (flood,), batches),
    ]
    if store is Store.POSTGRESQL:
        peer = Load(by=By.PEER, batch=100, callers=16)
        single, empty = (Load(by=by, batch=1, callers=64) for by in (By.GRPC, By.EMPTY))
        loads += [peer, single, empty]
        name = f"single events, 64 callers ÷ the empty RPC, {store}"
        ratios += [
            Ratio(name=f"gRPC, 100 a batch ÷ FastAPI + SQLAlchemy, {store}", over=batches, under=(peer,), target=8),
            Ratio(name=name, over=(single,), under=(empty,), target=0.50),
        ]
    return Scenario(
        name=store.lower(),
        title=f"{store}: batches of 100{', single events' if store is Store.POSTGRESQL else ''}",
        store=store,
        loads=tuple(loads),
        ratios=tuple(ratios),
        seconds=1.0,
        memory_target=_MEMORY,
    )


def _overload(store: Store) -> Scenario:
    """Return more and more callers, who come back when they are told to."""
    loads, ratios = [], []
    for batch, callers, floods in ((100, _SATURATING, (5, 25)), (1_000, _SATURATING_WIDE, (5,))):
        peak = Load(by=By.GRPC, batch=batch, callers=callers, patient=True)
        loads.append(peak)
        for times in floods:
            flood = replace(peak, callers=times * callers)
            loads.append(flood)
            ratios.append(_goodput(store, times, (flood,), (peak,)))
    return Scenario(
        name=f"overload-{store.lower()}",
        title=f"{store}: overload",
        store=store,
        loads=tuple(loads),
        ratios=tuple(ratios),
        memory_target=_MEMORY,
    )


def _goodput(store: Store, times: int, over: tuple[Load, ...], under: tuple[Load, ...]) -> Ratio:
    name = f"goodput of {times} times the callers that saturate ÷ peak, {over[0].batch:,} a batch, {store}"
    return Ratio(name=name, over=over, under=under, target=0.90)


def _shapes(store: Store) -> Scenario:
    """Return every batch size, way and number of callers."""
    return Scenario(
        name=f"shapes-{store.lower()}",
        title=f"{store}: batch size, way in, callers",
        store=store,
        loads=tuple(
            Load(by=by, batch=batch, callers=callers, patient=batch * callers > _HOUSEFUL and by is By.GRPC)
            for batch in (1, 10, 100, 1_000)
            for by in (By.GRPC, By.GHZ, By.REST)
            for callers in (1, 8, 64)
        ),
    )


def _latency(store: Store) -> Scenario:
    """Return what a call takes when half of what can be stored is sent, beside the same without a pause."""
    return Scenario(
        name=f"latency-{store.lower()}",
        title=f"{store}: latency at half load",
        store=store,
        loads=tuple(
            Load(by=by, batch=batch, callers=64, pace=pace)
            for batch in (1, 100)
            for by in (By.GRPC, By.HTTP)
            for pace in (0.0, 0.5)
        ),
        seconds=3.0,
    )


def _content(store: Store) -> Scenario:
    """Return what duplicates cost, and many workspaces."""
    plain = Load(by=By.GRPC, batch=100, callers=_SATURATING)
    some, all_ = (Load(by=By.GRPC, batch=100, callers=_SATURATING, duplicates=share) for share in (0.1, 1.0))
    many = Load(by=By.GRPC, batch=100, callers=_SATURATING, workspaces=1_000)
    names = {some: "10 % duplicates ÷ none", all_: "all duplicates ÷ none", many: "1,000 workspaces ÷ one"}
    return Scenario(
        name=f"content-{store.lower()}",
        title=f"{store}: duplicates, workspaces",
        store=store,
        loads=(plain, *names),
        ratios=tuple(Ratio(name=f"{name}, {store}", over=(load,), under=(plain,)) for load, name in names.items()),
    )


def _growth(store: Store, rows: int) -> Scenario:
    """Return the product and the limit in a table that already holds so many events."""
    limits = _limits(_LIMITS[store][-2:])
    batches = tuple(Load(by=By.GRPC, batch=100, callers=count) for count in (_SATURATING, 64))
    name = f"gRPC, 100 a batch ÷ the limit, {store} with {rows:,} events"
    return Scenario(
        name=f"growth-{rows // 1000}k-{store.lower()}",
        title=f"{store} with {rows:,} events",
        store=store,
        loads=(*limits, *batches),
        ratios=(Ratio(name=name, over=batches, under=limits, target=0.60),),
        seconds=4.0,
        rows=rows,
    )


def _limits(groups: tuple[int, ...]) -> tuple[Load, ...]:
    return tuple(Load(by=By.LIMIT, batch=group) for group in groups)
