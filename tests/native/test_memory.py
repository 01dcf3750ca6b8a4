"""Numbers in a body choose no allocation of the compiled core."""

import subprocess
import sys

from tests.native import twins
from tests.native.proto_inputs import varint
from tests.support.poison import field

pytestmark = twins.needs_core

_LIMITED = """
import resource, sys
from headgate_server.core import compiled

core = compiled.find({}).core
salt = bytes(16)
large = (1, salt, 1, 1, "r", "t", "s", "", None, bytes(24 << 20), None, None, None, salt, salt, salt, None)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, ((pages << 12) + (32 << 20),) * 2)
try:
    bytearray(64 << 20)
except MemoryError:
    print("limited")
for event in eval(sys.stdin.readline()):
    core.decode_events([event], [salt])
for text in eval(sys.stdin.readline()):
    core.decode_texts([text], [salt])
    core.decode_body(text, sys.maxsize, lambda count: [salt] * count)
for number in (sys.maxsize, -1, 2**63):
    try:
        core.decide_run([], number, b"", {}, 1, number, bytes(32), number, number)
    except OverflowError:
        pass
try:
    core.copy_rows([large])
except MemoryError:
    print("no place for a copy")
assert len(core.copy_rows([(*large[:9], b"{}", *large[10:])])) == 1
print("done")
"""
_LONG = """
import resource, sys
from headgate_server.core import compiled

core = compiled.find({}).core
salt = bytes(16)
bodies = eval(sys.stdin.readline())
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, ((pages << 12) + (32 << 20),) * 2)
for event, text in bodies:
    (draft,), left = core.decode_events([event], [salt])
    assert left == []
    del draft
    assert core.decode_texts([text], [salt])[1] == []
    assert core.decode_body(b"[%s]" % text, 1, lambda count: [salt] * count)[1] == []
assert len(core.decode_body(b"[" + b"0," * 99_999 + b"0]", 100_000, lambda count: [salt] * count)[1]) == 100_000
print("done")
"""
_HUGE = (2**20, 2**31 - 1, 2**32, 2**40, 2**63 - 1, 2**64 - 1)


def _events() -> list[bytes]:
    """Return events of which one length claims more than is there, at every level."""
    kind = field(1, b"t")
    events = []
    for claimed in map(varint, _HUGE):
        events += [kind + bytes([number << 3 | 2]) + claimed for number in range(1, 8)]
        inner = [b"\x0a" + claimed, b"\x12" + claimed, field(1, b"\x0a" + claimed), field(1, b"\x12" + claimed)]
        inner += [field(1, field(2, tag + claimed)) for tag in (b"\x1a", b"\x2a", b"\x32")]
        events += [kind + field(5, each) for each in inner] + [kind + field(4, b"\x08" + claimed)]
    return events


def _texts() -> list[bytes]:
    """Return JSON events with numbers that are much longer when they are written out, and deep ones."""
    numbers = [f"{digits}e{sign}{huge}" for digits in ("1", "0.1") for sign in ("", "-") for huge in (9_999, *_HUGE)]
    texts = [b'{"type":"t","data":{"a":%s}}' % number.encode() for number in numbers]
    texts += [b'{"type":"t","data":' + b'{"a":' * 1_000_000, b"[" * 1_000_000, b'{"events":' + b"[" * 1_000_000]
    texts.append(b'[{"type":"t","data":{"a":[%s1]}}]' % (b"1e9999," * 100_000))
    return texts


def _long() -> list[tuple[bytes, bytes]]:
    """Return events of half a MB whose canonical form, or what is noted of them, is the longest. The Struct of the
    first has only characters that are escaped."""
    escaped = field(1, field(1, b"a") + field(2, field(3, b"\x01" * 500_000)))
    names = b",".join(b'"%05x":0' % number for number in range(60_000, 0, -1))
    numbers = b",".join([b"1e20"] * 100_000)
    datas = [b'{"a":"%s"}' % (b"\\u0001" * 80_000), b"{%s}" % names, b'{"a":[%s]}' % numbers]
    events = [field(1, b"t") + field(6, data) for data in datas]
    return [
        (event, b'{"type":"t","data":%s}' % data)
        for event, data in zip([field(1, b"t") + field(5, escaped), *events[1:]], datas, strict=True)
    ]


def _survived(program: str, given: str) -> tuple[int, str, str]:
    """Run a program. An allocation that fails ends a process that runs Rust's code."""
    done = subprocess.run(
        [sys.executable, "-c", program], input=given, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def test_what_is_made_of_a_body_is_bounded_by_its_length() -> None:
    """In a process with 32 MB left."""
    assert _survived(_LONG, f"{_long()!r}\n") == (0, "done\n", "")


def test_no_allocation_is_chosen_by_a_number() -> None:
    """In a process with 32 MB left."""
    given = f"{_events()!r}\n{_texts()!r}\n"
    assert _survived(_LIMITED, given) == (0, "limited\nno place for a copy\ndone\n", "")
