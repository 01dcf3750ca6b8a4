"""Draws serialized events by protobuf's grammar, with what is rare: varints too long, wrong lengths, fields twice."""

import struct
from collections.abc import Callable, Sequence

from headgate_server.core import timestamps
from tests.native.json_inputs import JsonInputs
from tests.native.text_inputs import NOT_UTF8

_HUGE = (2**14, 2**21, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**35, 2**63 - 1, 2**63, 2**64 - 1)
_EDGES = (0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
_SECONDS = (
    0, 1, -1, 1_705_314_600, timestamps.MIN // 10**6, timestamps.MIN // 10**6 - 1, timestamps.MAX // 10**6,
    timestamps.MAX // 10**6 + 1, 2**53, 2**62, 2**63 - 1, -(2**63), 9_223_372_036_854, 9_223_372_036_855,
)  # fmt: skip
_NANOS = (
    0,
    1,
    999,
    1_000,
    1_001,
    120_000_000,
    999_999_000,
    999_999_999,
    10**9,
    -1,
    -1_000,
    2**31,
    2**32,
    2**32 + 1_000,
)
_DOUBLES = (
    0.0, -0.0, 0.1, 5e-324, 1e-7, 1e-6, 1e20, 1e21, 1e22, 1e23, 2.0**53, 2.0**53 - 1, 2.0**53 + 2, 2.0**63, -(2.0**63),
    1.7976931348623157e308, 2.2250738585072014e-308, 9.5e-7, 123456789012345680.0, float("inf"), float("nan"),
)  # fmt: skip


def varint(value: int, padding: int = 0) -> bytes:
    """Return a varint of the lowest 64 bits, with bytes that change nothing behind it."""
    value &= 2**64 - 1
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    for _ in range(padding):
        written[-1] |= 0x80
        written.append(0)
    return bytes(written)


class ProtoInputs(JsonInputs):
    """Draws messages. The payload of an event can be a JSON text, so this draws all that JSON has, too."""

    def field(self, number: int, kind: int, content: bytes) -> bytes:
        """Write a field. `content` has its length before it if the kind is 2; now and then a wrong one."""
        length = b""
        if kind == 2:
            claimed = self.one((*_HUGE, len(content) + 1, max(0, len(content) - 1))) if self.rarely(0.004) else None
            length = self.varint(len(content) if claimed is None else claimed)
        return self.varint(number << 3 | kind) + length + content

    def varint(self, value: int) -> bytes:
        """Write a varint, now and then with more bytes than it needs, or without its end."""
        if not self.rarely(0.008):
            return varint(value)
        return self.one((varint(value, 1), varint(value, 3), varint(value)[:-1] + b"\xff", b"\xff" * 10, b"\x80" * 11))

    def encoded(self, text: str) -> bytes:
        """Encode a text; now and then it is not UTF-8."""
        return text.encode() + self.one(NOT_UTF8) if self.rarely(0.01) else text.encode()

    def unknown(self) -> bytes:
        """Draw a field that no message has, of any kind, also a group."""
        number = self.one((8, 9, 15, 16, 100, 2**28, 2**29 - 1))
        match self.chance.randrange(6):
            case 0:
                return self.field(number, 0, varint(self.one(_EDGES)))
            case 1:
                return self.field(number, 1, bytes(8))
            case 2:
                return self.field(number, 2, b"x" * self.one((0, 1, 127, 128)))
            case 3:
                return self.field(number, 5, bytes(4))
            case 4:
                inner = self.unknown() if self.rarely(0.3) else b""
                return varint(number << 3 | 3) + inner + varint(self.one((number, number, 7)) << 3 | 4)
            case _:
                return varint(self.one((0, 1, 6, 7, 4, number << 3 | 6, number << 3 | 7)))

    def joined(self, fields: Sequence[bytes]) -> bytes:
        """Join fields of a message: mostly in order, now and then not, twice, among unknown ones, or cut off."""
        drawn = list(fields)
        if drawn and self.rarely(0.06):
            drawn.append(self.one(drawn))
        if self.rarely(0.03):
            drawn.insert(self.chance.randrange(len(drawn) + 1), self.unknown())
        if self.rarely(0.1):
            self.chance.shuffle(drawn)
        message = b"".join(drawn)
        return message[: self.chance.randrange(len(message) + 1)] if self.rarely(0.005) else message

    def timestamp(self) -> bytes:
        """Draw a Timestamp."""
        seconds = self.one(_SECONDS) if self.rarely(0.3) else self.chance.randrange(2 * 10**9)
        nanos = self.one(_NANOS) if self.rarely(0.3) else 1_000 * self.chance.randrange(10**6)
        return self.joined([self.field(1, 0, self.varint(seconds)), self.field(2, 0, self.varint(nanos))])

    def double(self) -> bytes:
        """Draw the eight bytes of a double: one at an edge, a decimal, or any bits."""
        match self.chance.randrange(4):
            case 0:
                value = self.one(_DOUBLES)
            case 1:
                value = self.chance.randrange(-(10**9), 10**9) / 10 ** self.chance.randrange(9)
            case 2:
                value = float(self.chance.randrange(-(2**60), 2**60))
            case _:
                return self.chance.randbytes(8)
        return struct.pack("<d", value)

    def struct_value(self, levels: int) -> bytes:
        """Draw a Value of a Struct; now and then with two kinds, or none."""
        kinds: list[Callable[[], bytes]] = [
            lambda: self.field(2, 1, self.double()),
            lambda: self.field(2, 1, self.double()),
            lambda: self.field(3, 2, self.encoded(self.text())),
            lambda: self.field(4, 0, self.varint(self.one((0, 1, 1, 1)) if not self.rarely() else self.one(_EDGES))),
            lambda: self.field(1, 0, self.varint(0 if not self.rarely() else self.one(_EDGES))),
            lambda: b"",
        ]
        if levels > 0:
            kinds.append(lambda: self.field(5, 2, self.struct(levels - 1)))
            kinds.append(lambda: self.field(6, 2, self.list_value(levels - 1)))
        value = self.one(kinds)()
        return self.joined([value, self.one(kinds)()] if self.rarely(0.02) else [value])

    def struct(self, levels: int = 3) -> bytes:
        """Draw a Struct: its members, of which a name may occur twice, or is absent."""
        if self.rarely(0.01):
            return self._deep_struct(self.one((28, 29, 30, 31, 32, 33, 34, 49, 50, 99, 100)))
        members = []
        for name in dict.fromkeys(self.name() for _ in range(self.chance.randrange(5))):
            parts = [self.field(1, 2, self.encoded(name)), self.field(2, 2, self.struct_value(levels))]
            if self.rarely(0.03):
                del parts[self.chance.randrange(2)]
            members.append(self.field(1, 2, self.joined(parts)))
        self.chance.shuffle(members)
        return self.joined(members)

    def _deep_struct(self, levels: int) -> bytes:
        deep = b""
        for _ in range(levels):
            if self.rarely(0.3):
                value = self.field(6, 2, self.field(1, 2, self.field(5, 2, deep)))
            else:
                value = self.field(5, 2, deep)
            deep = self.field(1, 2, self.field(1, 2, b"a") + self.field(2, 2, value))
        return deep

    def list_value(self, levels: int) -> bytes:
        """Draw a ListValue."""
        return self.joined([self.field(1, 2, self.struct_value(levels)) for _ in range(self.chance.randrange(4))])

    def proto_event(self) -> bytes:
        """Draw a serialized Event."""
        fields = [self.field(1, 2, self.encoded(self.text()))]
        fields += [self.field(number, 2, self.encoded(self.text())) for number in (2, 3) if self.chance.random() < 0.5]
        if self.chance.random() < 0.5:
            fields.append(self.field(4, 2, self.timestamp()))
        payload = self.chance.randrange(4)
        if payload == 1 or self.rarely():
            fields.append(self.field(5, 2, self.struct()))
        if payload in (2, 3) or self.rarely():
            text = self.object() if not self.rarely() else self.value()
            fields.append(self.field(6, 2, self.space() + text + self.space()))
        if self.chance.random() < 0.5:
            fields.append(self.field(7, 2, b"" if self.rarely() else self.encoded(self.text())))
        if self.rarely():
            number = self.chance.randrange(1, 8)  # a field of ours of another kind
            fields.append(self.field(number, self.one((0, 1, 3, 5)), self.one((b"\x01", bytes(8), bytes(4), b""))))
        return self.joined(fields)
