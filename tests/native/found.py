"""Inputs of which the two cores once made different things. Fuzzing found them; each stays a test.

After a difference is mended, its input is added here: what `fuzz.py` prints, cut down to what shows the difference.
"""

import struct
from typing import NamedTuple

from headgate.v1.event_pb2 import Event


class Found(NamedTuple):
    """What was different, and the input: serialized events, or a JSON body."""

    what: str
    events: tuple[bytes, ...] = ()
    body: bytes = b""


def _double(bits: int) -> bytes:
    event = Event(type="t")
    event.data["n"] = struct.unpack(">d", bits.to_bytes(8))[0]
    return event.SerializeToString()


FOUND = (
    # Rust's standard library writes the odd one of two shortest decimals that are equally near.
    Found("a double that lies between two shortest decimals", (_double(0x4312B22A5A49673D),)),
)
