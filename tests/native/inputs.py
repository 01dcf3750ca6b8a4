"""Draws events and bodies by their grammars, with what is rare in each: `fuzz.py` compares both cores on them.

Damaged bytes rarely get past the first check. These inputs are mostly valid, and odd in a few places each.
"""

import random
import struct
from collections.abc import Callable, Sequence

from headgate_server.core import timestamps

_CHARACTERS = (
    "a", "b", "z", "A", "0", " ", "~", "\x7f", "é", "ß", "ÿ", "Ā", "߿", "ࠀ", "ἀ", "ﬀ", "\u2028", "\ufeff", "\ufffd",
    "\ufffe", "\uffff", "\ue000", "\ud7ff", "e\u0301", "𐀀", "👍", "\U0010ffff", "\U0001f3ff", "\u200d", "\u0131", "İ",
)  # fmt: skip
_SPECIAL = ('"', "\\", "/", "\n", "\t", "\r", "\b", "\f", "\x00", "\x01", "\x1f", "\x0b")
_NOT_UTF8 = (b"\xff", b"\xc0\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xf0\x9f\x91")
_NAMES = ("a", "b", "aa", "a:", "", "é", "type", "data", "\uffff", "\U00010000", "\ue000", "1", "10", "2", '"', "\n")
_NUMBERS = (
    "0", "-0", "0.0", "-0.0", "0e0", "1", "-1", "9007199254740991", "9007199254740992", "9007199254740993", "1e15",
    "1e16", "1e20", "1e21", "1e22", "999999999999999999999", "1000000000000000000000", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "1e-6", "1e-7", "0.000001", "0.0000001", "5e-324", "2.5e-324",
    "1.7976931348623157e308", "1.7976931348623159e308", "1e309", "1e9999", "1e-9999", "1e10000", "1e00009",
    "1E+2", "1e-0", "0.1", "0.30000000000000004", "123456789012345678", "1234567890123456789012", "12345678901234567e5",
    "12345678901234567e4",
)  # fmt: skip
_NO_NUMBERS = (
    "00",
    "01",
    "1.",
    ".5",
    "+1",
    "-",
    "1e",
    "1e+",
    "0x1",
    "1_0",
    "NaN",
    "Infinity",
    "1e99999999999",
    "\uff11",
)
_TIMES = (
    "2026-11-30T12:25:09Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "1970-01-01T00:00:00.000001Z",
    "2024-02-29T00:00:00Z", "2000-02-29T23:59:59-23:59", "2026-11-30t12:25:09z", "2026-11-30T12:25:09.120+05:30",
    "2026-11-30T12:25:09+14:00",
)  # fmt: skip
_ODD_TIMES = (
    "2023-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
    "2026-11-30 12:25:09Z", "2026-11-30T12:25:60Z", "2026-12-31T23:59:60Z", "2026-11-30T24:00:00Z",
    "2026-11-30T12:25:09.1234567Z", "2026-11-30T12:25:09.1234560Z", "2026-11-30T12:25:09.Z", "2026-11-30T12:25Z",
    "2026-11-30", "2026-11-30T12:25:09", "2026-11-30T12:25:09+24:00", "2026-11-30T12:25:09-00:60",
    "2026-13-01T00:00:00Z", "2026-11-30T12:25:09,5Z", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z",
    "\uff12026-11-30T12:25:09Z", "",
)  # fmt: skip
_LENGTHS = (0, 1, 2, 127, 128, 254, 255, 256, 257, 300)
_HUGE = (2**14, 2**21, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**35, 2**63 - 1, 2**63, 2**64 - 1)
_EDGES = (0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
ODD_VALUES = (
    None, 0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**70, True, 1.0, 1.5, float("nan"), b"",
    b"x" * 8, bytes(16), b"\xff" * 17, b"x" * 600_000, bytearray(16), memoryview(b"x"), "", "x", "é👍", "a\0b",
    "0" * 32, "x" * 600_000, "\ud800", [], (1,), {}, object,
)  # fmt: skip
"""Values for a column of `events`, of its type or not."""
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


def is_of(column: str, value: object) -> bool:
    """Whether a value can be in a column of a type, as the compiled core writes it."""
    match column:
        case "uuid":
            return isinstance(value, bytes) and len(value) == 16
        case "bigint":
            return value is None or (isinstance(value, int) and -(2**63) <= value < 2**63)
        case "text":
            return value is None or (isinstance(value, str) and "\ud800" not in value)
        case _:
            return value is None or isinstance(value, bytes)


class Inputs:
    """Draws inputs from a source of chance."""

    def __init__(self, chance: random.Random):
        self.chance = chance
        self.oddness = 1.0
        self._one = chance.choice

    def rarely(self, part: float = 0.03) -> bool:
        """Whether something rare is drawn, in this input more or less often than in others."""
        return self.chance.random() < part * self.oddness

    def turn(self) -> None:
        """Begin another input: some have nothing rare at all."""
        self.oddness = self.chance.choice((0.0, 0.0, 0.3, 1.0, 1.0, 3.0))

    # Texts.

    def text(self) -> str:
        """Draw a text for a field."""
        if self.rarely(0.15):
            # Limits count characters, so the same length in other bytes is tried too.
            return self._one(_CHARACTERS) * self._one(_LENGTHS)
        drawn = [self._one(_CHARACTERS) for _ in range(self.chance.randrange(1, 6))]
        if self.rarely(0.1):
            drawn.append(self._one(_SPECIAL))
        return "".join(drawn)

    def name(self) -> str:
        """Draw a name of a member: one of few, so that names meet."""
        return self._one(_NAMES) if self.chance.random() < 0.8 else self.text()

    def json_text(self, text: str) -> bytes:
        """Spell a text in JSON: each character as it is, or escaped in any way."""
        spelt = [self._spelt(character) for character in text]
        if self.rarely(0.01):
            lone = (b"\\ud800", b"\\uDFFF", b"\\udc00\\ud800", b"\\u12", b"\\x41", b"\\", b"\n", *_NOT_UTF8)
            spelt.insert(self.chance.randrange(len(spelt) + 1), self._one(lone))
        return b'"' + b"".join(spelt) + b'"'

    def _spelt(self, character: str) -> bytes:
        short = {'"': b'\\"', "\\": b"\\\\", "\n": b"\\n", "\t": b"\\t", "\r": b"\\r", "\b": b"\\b", "\f": b"\\f"}
        if character >= " " and character not in '"\\' and self.chance.random() < 0.85:
            return character.encode()
        if character in short and self.chance.random() < 0.7:
            return short[character]
        if character == "/":
            return b"\\/"
        units = character.encode("utf-16-be")
        form = self._one(("\\u%04x", "\\u%04X"))
        return "".join(form % int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)).encode()

    def space(self) -> bytes:
        """Draw white space, mostly none."""
        return self._one((b" ", b"\n", b"\t", b"\r\n", b"  ", b"\x0b", b"\xc2\xa0")) if self.rarely(0.02) else b""

    # JSON.

    def number(self) -> bytes:
        """Draw a number: one at an edge, or digits in any spelling."""
        if self.rarely(0.01):
            return self._one(_NO_NUMBERS).encode()
        if self.chance.random() < 0.4:
            return self._one(_NUMBERS).encode()
        digits = "".join(self._one("0123456789") for _ in range(self._one((1, 2, 5, 15, 16, 17, 18, 21, 22, 30))))
        token = self._one(("", "", "-")) + (digits.lstrip("0") or "0")
        if self.chance.random() < 0.6:
            token += "." + "0" * self._one((0, 0, 1, 5, 6, 7, 20)) + str(self.chance.randrange(10**18))
        if self.chance.random() < 0.4:
            token += self._one("eE") + self._one(("", "+", "-")) + "0" * self.chance.randrange(3)
            token += str(self.chance.randrange(10 ** self.chance.randrange(1, 5)))
        return token.encode()

    def value(self, levels: int = 3) -> bytes:
        """Draw a JSON value of at most so many levels; now and then one near the limit of levels."""
        if self.rarely(0.01):
            deep = self.chance.choice((29, 30, 31, 98, 99, 100, 101, 102))
            open_, close = self._one(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"b":1,"a":', b"}]")))
            return open_ * deep + self.value(0) + close * deep
        kind = self.chance.randrange(10 if levels > 0 else 7)
        if kind < 2:
            return self.number()
        if kind < 5:
            return self.json_text(self.text())
        if kind == 5:
            return self._one((b"null", b"true", b"false", b"[]", b"{}", b"{ }", b"[ ]"))
        if kind == 6:
            return self._one((b"nul", b"True", b"", b"undefined", b"'a'")) if self.rarely() else b"1"
        if kind == 7:
            items = [self.space() + self.value(levels - 1) + self.space() for _ in range(self.chance.randrange(4))]
            return b"[" + b",".join(items) + (b",]" if self.rarely(0.01) else b"]")
        return self.object(levels)

    def object(self, levels: int = 3) -> bytes:
        """Draw an object. Its names are in any order, and rarely one occurs twice, in another spelling."""
        names = [self.name() for _ in range(self.chance.randrange(6))]
        if not self.rarely(0.1):
            names = list(dict.fromkeys(names))
        return self._members([(self.json_text(name), self.value(levels - 1)) for name in names])

    def _members(self, members: Sequence[tuple[bytes, bytes]]) -> bytes:
        written = [
            self.space() + name + self.space() + b":" + self.space() + value + self.space() for name, value in members
        ]
        end = self._one((b",}", b"", b"}}", b"]")) if self.rarely(0.005) else b"}"
        return b"{" + b",".join(written) + end

    def time(self) -> bytes:
        """Draw a time in JSON."""
        if self.chance.random() < 0.5:
            return self.json_text(self._one(_ODD_TIMES if self.rarely(0.2) else _TIMES))
        moment = timestamps.format(self.chance.randrange(timestamps.MIN, timestamps.MAX))
        if self.rarely(0.3):
            at = self.chance.randrange(len(moment))
            moment = moment[:at] + self._one("0123456789:.-+TZ ") + moment[at + self.chance.randrange(2) :]
        return b'"' + moment.encode() + b'"'

    def json_event(self) -> bytes:
        """Draw an event in JSON."""
        members = [(b'"type"', self.json_text(self.text()))]
        optional: tuple[tuple[tuple[bytes, ...], Callable[[], bytes]], ...] = (
            ((b'"source"',), lambda: self.json_text(self.text())),
            ((b'"subject"',), lambda: self.json_text(self.text())),
            ((b'"occurred_at"', b'"occurredAt"'), self.time),
            ((b'"data"',), self.object),
            ((b'"idempotency_key"', b'"idempotencyKey"'), lambda: self.json_text(self.text())),
        )
        for names, draw in optional:
            if self.chance.random() < 0.5:
                members.append((self._one(names), draw()))
        if self.rarely(0.2):
            odd = (b'"data_json"', b'"dataJson"', b'"d\\u0061ta"', b'"Type"', b'""', b'"version"', b'"id"')
            members.append((self._one((*odd, *[name for name, _ in members])), self.value(1)))
        if self.rarely(0.2):
            at = self.chance.randrange(len(members))
            members[at] = (members[at][0], self._one((b"null", b'""', b"5", b"[]", b"{}", b"true", self.value(1))))
        self.chance.shuffle(members)
        return self._members(members)

    def body(self, events: Sequence[bytes]) -> bytes:
        """Put events into a body: a list, an object with options, lines, or something that is no body."""
        listed = b",".join(self.space() + event + self.space() for event in events)
        match self.chance.randrange(8):
            case 0 | 1:
                return self.space() + b"[" + listed + b"]" + self.space()
            case 2:
                return self._one((b"\n", b"\r\n", b"\n\n", b" \n\t", b"\r", b"")).join(events) + self.space()
            case 3 if self.rarely(0.3):
                return self._one((b"\xef\xbb\xbf[", b"[,", b"[[", b"{", b'{"events":', b"")) + listed + b"]"
            case _:
                members = [(self._one((b'"events"',) * 20 + (b'"event\\u0073"', b'"Events"')), b"[" + listed + b"]")]
                values = (b"true", b"false", b"null") * 5 + (b'"true"', b"1", b"{}")
                names = (b'"atomic"', b'"validate_only"', b'"validateOnly"') * 5 + (b'"events"', b'"x"')
                members += [(self._one(names), self._one(values)) for _ in range(self.chance.randrange(3))]
                self.chance.shuffle(members)
                return self._members(members)

    # Protobuf.

    def field(self, number: int, kind: int, content: bytes) -> bytes:
        """Write a field. `content` has its length before it if the kind is 2; now and then a wrong one."""
        length = b""
        if kind == 2:
            claimed = self._one((*_HUGE, len(content) + 1, max(0, len(content) - 1))) if self.rarely(0.004) else None
            length = self.varint(len(content) if claimed is None else claimed)
        return self.varint(number << 3 | kind) + length + content

    def varint(self, value: int) -> bytes:
        """Write a varint, now and then with more bytes than it needs, or without its end."""
        if not self.rarely(0.008):
            return varint(value)
        return self._one((varint(value, 1), varint(value, 3), varint(value)[:-1] + b"\xff", b"\xff" * 10, b"\x80" * 11))

    def encoded(self, text: str) -> bytes:
        """Encode a text; now and then it is not UTF-8."""
        return text.encode() + self._one(_NOT_UTF8) if self.rarely(0.01) else text.encode()

    def unknown(self) -> bytes:
        """Draw a field that no message has, of any kind, also a group."""
        number = self._one((8, 9, 15, 16, 100, 2**28, 2**29 - 1))
        match self.chance.randrange(6):
            case 0:
                return self.field(number, 0, varint(self._one(_EDGES)))
            case 1:
                return self.field(number, 1, bytes(8))
            case 2:
                return self.field(number, 2, b"x" * self._one((0, 1, 127, 128)))
            case 3:
                return self.field(number, 5, bytes(4))
            case 4:
                inner = self.unknown() if self.rarely(0.3) else b""
                return varint(number << 3 | 3) + inner + varint(self._one((number, number, 7)) << 3 | 4)
            case _:
                return varint(self._one((0, 1, 6, 7, 4, number << 3 | 6, number << 3 | 7)))

    def joined(self, fields: Sequence[bytes]) -> bytes:
        """Join fields of a message: mostly in order, now and then not, twice, among unknown ones, or cut off."""
        drawn = list(fields)
        if drawn and self.rarely(0.06):
            drawn.append(self._one(drawn))
        if self.rarely(0.03):
            drawn.insert(self.chance.randrange(len(drawn) + 1), self.unknown())
        if self.rarely(0.1):
            self.chance.shuffle(drawn)
        message = b"".join(drawn)
        return message[: self.chance.randrange(len(message) + 1)] if self.rarely(0.005) else message

    def timestamp(self) -> bytes:
        """Draw a Timestamp."""
        seconds = self._one(_SECONDS) if self.rarely(0.3) else self.chance.randrange(2 * 10**9)
        nanos = self._one(_NANOS) if self.rarely(0.3) else 1_000 * self.chance.randrange(10**6)
        return self.joined([self.field(1, 0, self.varint(seconds)), self.field(2, 0, self.varint(nanos))])

    def double(self) -> bytes:
        """Draw the eight bytes of a double: one at an edge, a decimal, or any bits."""
        match self.chance.randrange(4):
            case 0:
                value = self._one(_DOUBLES)
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
            lambda: self.field(4, 0, self.varint(self._one((0, 1, 1, 1)) if not self.rarely() else self._one(_EDGES))),
            lambda: self.field(1, 0, self.varint(0 if not self.rarely() else self._one(_EDGES))),
            lambda: b"",
        ]
        if levels > 0:
            kinds.append(lambda: self.field(5, 2, self.struct(levels - 1)))
            kinds.append(lambda: self.field(6, 2, self.list_value(levels - 1)))
        value = self._one(kinds)()
        return self.joined([value, self._one(kinds)()] if self.rarely(0.02) else [value])

    def struct(self, levels: int = 3) -> bytes:
        """Draw a Struct: its members, of which a name may occur twice, or is absent."""
        if self.rarely(0.01):
            return self._deep_struct(self._one((28, 29, 30, 31, 32, 33, 34, 49, 50, 99, 100)))
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
            fields.append(self.field(number, self._one((0, 1, 3, 5)), self._one((b"\x01", bytes(8), bytes(4), b""))))
        return self.joined(fields)
