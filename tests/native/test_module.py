"""What the compiled core does with wrong values, with threads and with references."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate_server.core import compiled
from headgate_server.core.model import (
    Draft,
)
from headgate_server.rpc import decode
from tests.native import twins
from tests.native.shapes import SHAPES, as_json, as_message
from tests.support.drafts import draft

pytestmark = twins.needs_core


@pytest.mark.parametrize(
    "wrong",
    [
        lambda core: core.decode_events([1], [bytes(16)]),
        lambda core: core.decode_events([b""], []),
        lambda core: core.decode_texts(["{}"], [bytes(16)]),
        lambda core: core.decode_body(b'[{"type":"t"}]', 1, lambda count: None),
        lambda core: core.decide_run([draft()], 0, b"", {}, 1, 0, bytes(32), 0, 1),
        lambda core: core.decide_run(range(2**62), 2**61, bytes(8), {}, 1, 0, bytes(32), 0, 1),
        lambda core: core.decide_run([draft()], 0, bytes(8), {}, 1, "0", bytes(32), 0, 1),
        lambda core: core.batch_message([None], ()),
        lambda core: core.copy_rows([1]),
    ],
)
def test_wrong_values_are_exceptions(wrong: Any) -> None:
    with pytest.raises(TypeError):
        wrong(twins.core())


def test_large_batches_are_decoded_beside_each_other() -> None:
    """Also while other threads run: the interpreter's lock is released meanwhile."""
    event = as_message(SHAPES[0])
    events = [event] * (200_000 // len(event))
    with twins.fixed_randomness(), compiled.using(twins.core()):
        expected = decode.batch(RawBatchIngestRequest(events=events), 10_000)
    salts = [slot.salt for slot in expected.slots if isinstance(slot, Draft)]
    with ThreadPoolExecutor(4) as pool:
        for slots, left in pool.map(lambda _: twins.core().decode_events(events, salts), range(8)):
            assert left == []
            assert slots == expected.slots


def test_objects_are_released() -> None:
    """The core keeps no reference to what it returned."""
    salt = bytes(range(16))
    before = sys.getrefcount(salt)
    for _ in range(100):
        twins.core().decode_events([as_message(SHAPES[0])], [salt])
        twins.core().decode_texts([as_json(SHAPES[0])], [salt])
    assert sys.getrefcount(salt) == before
