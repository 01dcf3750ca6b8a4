"""The process that makes the checks that may take long. `checker.py` starts it and asks it.

It checks one event after another. The kernel ends it if one check takes too much processor time, and it cannot take
more memory than its limit. The library cannot be stopped in the middle of a check in any other way.
"""

import resource
import signal
import struct
import sys
from typing import BinaryIO, NamedTuple, TypeAlias

import orjson
from cachetools import LRUCache

from headgate_server.core.errors import InvalidRequest
from headgate_server.core.validator import Validator

LENGTHS = struct.Struct(">IIf")
"""The head of a request: the bytes of the schema, the bytes of the data, and the seconds of processor time."""
NO_DATA = 0xFFFFFFFF
"""The length that stands for no data: only compile the schema."""
ANSWER = struct.Struct(">I")
"""The head of an answer: its bytes."""

_MEMORY = 512 * 1024 * 1024
"""Bytes of addresses. The interpreter and its libraries take a fifth of it."""
_COMPILED_BYTES = 2 * 1024 * 1024
"""Bytes of schemas that are kept compiled. Compiled they take some fifteen times as much."""


class _Kept(NamedTuple):
    size: int
    validator: Validator


_Compiled: TypeAlias = LRUCache[bytes, _Kept]


def main() -> None:
    """Answer requests until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    compiled: _Compiled = LRUCache(_COMPILED_BYTES, getsizeof=lambda kept: kept.size)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(LENGTHS.size):
        schema_length, data_length, seconds = LENGTHS.unpack(head)
        schema = requests.read(schema_length)
        data = None if data_length == NO_DATA else requests.read(data_length)
        # At its end the kernel sends SIGPROF, which ends the process.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = _answer(compiled, schema, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answers, answer)


def _answer(compiled: _Compiled, schema: bytes, data: bytes | None) -> bytes:
    """Return `{}` for a schema that is accepted and data that matches, or what is wrong."""
    try:
        kept = compiled.get(schema)
        if kept is None:
            kept = compiled[schema] = _Kept(len(schema), Validator(schema))
        violation = None if data is None else kept.validator.check(data)
    except InvalidRequest as error:
        return orjson.dumps({"invalid": [error.message, error.field]})
    return orjson.dumps({} if violation is None else {"violation": list(violation)})


def _send(answers: BinaryIO, answer: bytes) -> None:
    answers.write(ANSWER.pack(len(answer)) + answer)
    answers.flush()


if __name__ == "__main__":
    main()
