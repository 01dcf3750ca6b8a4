"""The door to the compiled core: which one is used, and what happens if it fails."""

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from structlog.testing import capture_logs

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, StreamIngestResponse
from headgate_server.core import compiled, ledger
from headgate_server.core.model import Draft, Settled, Submission
from headgate_server.core.settle import Settlement
from headgate_server.process.metrics import Metrics
from headgate_server.rpc import decode, wire
from tests.support.drafts import draft
from tests.support.inprocess import serving

_EVENT = Event(type="t", idempotency_key="k").SerializeToString()
_JSON = b'{"type":"t","idempotency_key":"k"}'


class _Broken:
    """A core that fails at every call."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any) -> Any:
            raise RuntimeError("a bug of the compiled core")

        return fail


def _module(**members: Any) -> ModuleType:
    module = ModuleType("headgate_native")
    vars(module).update(members)
    return module


def test_the_environment_turns_the_core_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "headgate_native", _module(VERSION="1", SEAM=compiled.SEAM, Core=_any))
    assert compiled.find({"HEADGATE_PURE": "1"}, "1") == (None, "pure Python, because HEADGATE_PURE is set", False)
    for value in ("", "0"):
        assert compiled.find({"HEADGATE_PURE": value}, "1").said == "compiled, headgate_native 1"


def _any(*_: Any) -> Any:
    return object()


@pytest.mark.parametrize(
    "module",
    [_module(VERSION="2", SEAM=compiled.SEAM, Core=_any), _module(VERSION="1", SEAM=0, Core=_any), _module()],
    ids=["another version", "another seam", "no version"],
)
def test_a_core_of_another_version_is_refused_with_one_line(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    monkeypatch.setitem(sys.modules, "headgate_native", module)
    found = compiled.find({}, "1")
    assert found.core is None
    assert found.refused
    assert "headgate_native is of version" in found.said
    assert "make native" in found.said
    assert "\n" not in found.said


def test_without_a_core_python_serves_and_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "headgate_native", None)
    found = compiled.find({})
    assert (found.core, found.refused) == (None, False)
    assert found.said.startswith("pure Python")


def test_the_core_in_this_folder_is_of_the_servers_version() -> None:
    root = Path(__file__).parent.parent.parent
    ours, cores = (tomllib.loads((root / name).read_text()) for name in ("pyproject.toml", "native/Cargo.toml"))
    assert cores["package"]["version"] == ours["project"]["version"]
    (seam,) = re.findall(r"const SEAM: u32 = (\d+);", (root / "native/src/python/mod.rs").read_text())
    assert int(seam) == compiled.SEAM


def test_out_of_memory_is_an_error_of_the_call() -> None:
    """A run of decisions may have stopped half-way, so Python must not decide the same slots again."""

    class Full(_Broken):
        def decide_run(self, *_: Any) -> Any:
            raise MemoryError

    settlement = Settlement(1, ledger.genesis("acme"), {}, {}, 0)
    with compiled.using(Full()), pytest.raises(MemoryError):
        settlement.decide(Submission(workspace_id=1, slots=[draft()]))


def all_work_with(core: Any) -> list[Exception]:
    """Do all that the core does, with one that fails at every call. Python must do it. Return the failures."""
    noted: list[Exception] = []
    before = compiled.failures
    with compiled.using(core), pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "on_failure", noted.append)
        bodies = [
            RawBatchIngestRequest(events=[_EVENT]),
            RawBatchIngestRequest(json=HttpBody(data=b'{"events":[%s]}' % _JSON)),
            RawBatchIngestRequest(json=HttpBody(data=_JSON, content_type="application/x-ndjson")),
        ]
        slots = [decode.batch(body, 10).slots[0] for body in bodies]
        slots.append(decode.single(RawIngestRequest(event=_EVENT)))
        slots.append(decode.single(RawIngestRequest(json=HttpBody(data=_JSON))))
        assert all(isinstance(slot, Draft) and (slot.type, slot.key) == ("t", "k") for slot in slots)
        settlement = Settlement(1, ledger.genesis("acme"), {}, {}, 0)
        decided = settlement.decide(Submission(workspace_id=1, slots=slots))
        assert isinstance(decided, Settled)
        outcomes = decided.outcomes
        assert [outcome.status for outcome in outcomes] == ["accepted"] + ["duplicate"] * 4
        response = BatchIngestResponse.FromString(wire.batch_bytes(outcomes))
        assert len(response.results) == len(wire.add_results(StreamIngestResponse(), outcomes).results) == 5
        assert wire.batch_answer(outcomes).data.startswith(b'{"total":5,"success_count":5,')
        assert compiled.copy_rows(settlement.rows) is None  # then asyncpg encodes them
    assert compiled.failures - before == len(noted) == 10
    return noted


def test_a_core_that_fails_is_noted_and_python_does_the_work() -> None:
    assert {str(error) for error in all_work_with(_Broken())} == {"a bug of the compiled core"}


async def test_the_operator_sees_which_core_is_used(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = compiled.Found(None, "pure Python; it is of another version", refused=True)
    monkeypatch.setattr(compiled, "found", refused)
    monkeypatch.setattr(compiled, "on_failure", compiled.on_failure)
    for core, said in ((None, "python"), (_Broken(), "compiled")):
        metrics = Metrics()
        with compiled.using(core), capture_logs() as logs:
            async with serving(sqlite_url, metrics=metrics):
                compiled.decode_events([], [])
            shown = metrics.read()
        assert [labels[-1] for labels in shown["headgate_build_info"]] == [said]
        assert shown["headgate_core_failures"] == {(): compiled.failures}
        assert [line["why"] for line in logs if line["event"] == "core_refused"] == [refused.said]
        failed = [line["error"] for line in logs if line["event"] == "core_failed"]
        assert failed == (["RuntimeError"] if core else [])
