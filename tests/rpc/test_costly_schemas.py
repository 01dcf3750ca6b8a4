"""Schemas that are made to take long: their events are refused, and other calls are answered meanwhile."""

import asyncio
import random
from typing import Any

import orjson
import pytest

from headgate_server.core.event_types import Mode
from headgate_server.core.model import Draft, Problem, Workspace
from headgate_server.core.validator import Violation
from headgate_server.ingest import event_types as checking
from headgate_server.ingest.checker import Checker, TooCostly
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.store import Store
from tests.support.calls import event, statuses
from tests.support.drafts import draft
from tests.support.eventtypes import Types, store_type
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite

RECURSIVE = {"type": "object", "properties": {"child": {"$ref": "#"}}}


def _doubling(step: dict[str, Any]) -> dict[str, Any]:
    definitions = {f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(40)}
    return {"$ref": "#/$defs/a0", "$defs": definitions | {"a40": step}}


def _nested(depth: int) -> Any:
    value: Any = {"last": 1}
    for _ in range(depth):
        value = {"c": value}
    return value


COSTLY: dict[str, tuple[Any, Any]] = {
    "references that double": (_doubling({"type": "object"}), {}),
    "references that double with every level of the data": (
        {
            "$defs": {
                "a": {"allOf": [{"minProperties": n, "properties": {"c": {"$ref": "#/$defs/a"}}} for n in (0, 1)]}
            },
            "allOf": [{"$ref": "#/$defs/a"}, {"required": ["missing"]}],
        },
        _nested(60),
    ),
    "an enum of objects for each of many values": (
        {"additionalProperties": {"items": {"enum": [{"a": number} for number in range(4_000)]}}},
        {"list": [{"a": 3_999}] * 20_000},
    ),
    "a regular expression with many states": (
        {"additionalProperties": {"pattern": "[ab]*a[ab]{5000}c"}},
        {"text": "".join(random.Random(1).choices("ab", k=200_000))},
    ),
}


@on_sqlite
async def test_a_check_that_takes_long_refuses_its_event_and_stalls_no_other_call(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "_CALL_SECONDS", 60.0)  # the machine may be busy with other tests
    async with service.caller() as caller, service.caller(workspace="other") as other:
        await store_type(service, "cheap", RECURSIVE)
        await other.batch(event())
        for name, (schema, data) in COSTLY.items():
            await store_type(service, name, schema)
            await Types(caller).put("touched", {"description": name})  # the change applies at once in this process
            costly = event("key", orjson.dumps(data), type=name)
            batch = asyncio.create_task(
                caller.batch(event(type="cheap", data={"child": {}}), costly, event(type="cheap", data={"child": 1}))
            )
            answered = 0
            while not batch.done():
                assert statuses(await other.batch(event())) == ["accepted"]
                answered += 1
            answer = await batch
            assert statuses(answer) == ["accepted", "rejected", "rejected"], name
            assert [result.error.reason for result in answer.results] == ["", "SCHEMA_TOO_COSTLY", "SCHEMA_MISMATCH"]
            assert not answer.results[1].error.retryable
            assert answered >= 3, name
        await store_type(service, "permissive", _doubling({}), Mode.PERMISSIVE)
        await Types(caller).put("touched", {})
        answer = await caller.batch(event(type="permissive", data={"a": 1}))
        assert statuses(answer) == ["accepted"]
        assert list(answer.results[0].warnings) == ['The check against the schema of "permissive" takes too long.']


class _Asked(Checker):
    """A checker that only counts the questions."""

    def __init__(self, *, costly: bool = False) -> None:
        super().__init__()
        self.questions = 0
        self._costly = costly

    async def check(self, schema: bytes, data: bytes) -> Violation | None:
        self.questions += 1
        if self._costly:
            raise TooCostly
        return None


async def _check(checks: EventTypeChecks, workspace: Workspace, *slots: Draft | Problem) -> list[Draft | Problem]:
    return list(await checks.check(workspace, slots))


async def _with_type(store: Store, schema: Any) -> Workspace:
    workspace = await store.directory.create_workspace("acme")
    await store.event_types.put(workspace.id, "t", orjson.dumps(schema), Mode.STRICT)
    found = await store.directory.workspace("acme")
    assert found is not None
    return found


@on_sqlite
async def test_ordinary_checks_are_made_without_the_other_process(store: Store) -> None:
    checker = _Asked()
    checks = EventTypeChecks(store.event_types, checker)
    workspace = await _with_type(store, {"properties": {"code": {"pattern": "^[A-Z]{3}$"}, "n": {"minimum": 0}}})
    good, bad = draft(type="t", data={"code": "ABC"}), draft(type="t", data={"n": -1})
    assert [type(slot) for slot in await _check(checks, workspace, good, bad)] == [Draft, Problem]
    assert checker.questions == 0
    # The same schema with data of which the work is not surely little.
    await _check(checks, workspace, draft(type="t", data={"text": "x" * 1_000_000}))
    assert checker.questions == 1


@on_sqlite
async def test_a_schema_whose_check_was_slow_is_not_checked_here_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = _Asked()
    checks = EventTypeChecks(store.event_types, checker)
    workspace = await _with_type(store, {"minProperties": 1})
    monkeypatch.setattr(checking, "_SLOW_SECONDS", -1.0)
    one, half = draft(type="t", data={"a": "x" * 100}), draft(type="t", data={"a": "x" * 20})
    await _check(checks, workspace, one)
    assert checker.questions == 0
    await _check(checks, workspace, one)
    assert checker.questions == 1
    await _check(checks, workspace, half)
    assert checker.questions == 1


@on_sqlite
async def test_the_costly_checks_of_one_call_have_a_bound_in_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is refused for now: it can be sent again in smaller batches."""
    checks = EventTypeChecks(store.event_types, _Asked())
    workspace = await _with_type(store, RECURSIVE)
    monkeypatch.setattr(checking, "_CALL_SECONDS", -1.0)
    (slot,) = await _check(checks, workspace, draft(type="t"))
    assert isinstance(slot, Problem)
    assert (slot.reason, slot.retryable) == ("SCHEMA_TOO_COSTLY", True)
    (keyed,) = await _check(checks, workspace, draft("key", type="t"))
    assert isinstance(keyed, Draft)
    assert keyed.refused == slot


@on_sqlite
async def test_a_workspace_without_event_types_costs_no_statement(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = EventTypeChecks(store.event_types, _Asked())
    workspace = await store.directory.create_workspace("acme")

    async def none(*_: object) -> None:
        raise AssertionError("the store was asked")

    for name in ("index", "get", "several"):
        monkeypatch.setattr(store.event_types, name, none)
    slots = [draft(), draft()]
    assert await checks.check(workspace, slots) is slots


@on_sqlite
async def test_an_event_type_that_is_deleted_meanwhile_is_unknown(store: Store) -> None:
    checks = EventTypeChecks(store.event_types, _Asked())
    workspace = await _with_type(store, {"minProperties": 1})
    await _check(checks, workspace, draft(type="other"))
    await store.event_types.delete(workspace.id, "t")
    (slot,) = await _check(checks, workspace, draft(type="t"))
    assert isinstance(slot, Draft)
    assert slot.refused is None
