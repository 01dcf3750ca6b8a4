"""Draws events and bodies in JSON by its grammar, with what is rare: numbers and times at the edges, names twice."""

from collections.abc import Callable, Sequence

from headgate_server.core import timestamps
from tests.native.text_inputs import TextInputs

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


class JsonInputs(TextInputs):
    """Draws JSON."""

    def number(self) -> bytes:
        """Draw a number: one at an edge, or digits in any spelling."""
        if self.rarely(0.01):
            return self.one(_NO_NUMBERS).encode()
        if self.chance.random() < 0.4:
            return self.one(_NUMBERS).encode()
        digits = "".join(self.one("0123456789") for _ in range(self.one((1, 2, 5, 15, 16, 17, 18, 21, 22, 30))))
        token = self.one(("", "", "-")) + (digits.lstrip("0") or "0")
        if self.chance.random() < 0.6:
            token += "." + "0" * self.one((0, 0, 1, 5, 6, 7, 20)) + str(self.chance.randrange(10**18))
        if self.chance.random() < 0.4:
            token += self.one("eE") + self.one(("", "+", "-")) + "0" * self.chance.randrange(3)
            token += str(self.chance.randrange(10 ** self.chance.randrange(1, 5)))
        return token.encode()

    def value(self, levels: int = 3) -> bytes:
        """Draw a JSON value of at most so many levels; now and then one near the limit of levels."""
        if self.rarely(0.01):
            deep = self.chance.choice((29, 30, 31, 98, 99, 100, 101, 102))
            open_, close = self.one(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"b":1,"a":', b"}]")))
            return open_ * deep + self.value(0) + close * deep
        kind = self.chance.randrange(10 if levels > 0 else 7)
        if kind < 2:
            return self.number()
        if kind < 5:
            return self.json_text(self.text())
        if kind == 5:
            return self.one((b"null", b"true", b"false", b"[]", b"{}", b"{ }", b"[ ]"))
        if kind == 6:
            return self.one((b"nul", b"True", b"", b"undefined", b"'a'")) if self.rarely() else b"1"
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
        end = self.one((b",}", b"", b"}}", b"]")) if self.rarely(0.005) else b"}"
        return b"{" + b",".join(written) + end

    def time(self) -> bytes:
        """Draw a time in JSON."""
        if self.chance.random() < 0.5:
            return self.json_text(self.one(_ODD_TIMES if self.rarely(0.2) else _TIMES))
        moment = timestamps.format(self.chance.randrange(timestamps.MIN, timestamps.MAX))
        if self.rarely(0.3):
            at = self.chance.randrange(len(moment))
            moment = moment[:at] + self.one("0123456789:.-+TZ ") + moment[at + self.chance.randrange(2) :]
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
                members.append((self.one(names), draw()))
        if self.rarely(0.2):
            odd = (b'"data_json"', b'"dataJson"', b'"d\\u0061ta"', b'"Type"', b'""', b'"version"', b'"id"')
            members.append((self.one((*odd, *[name for name, _ in members])), self.value(1)))
        if self.rarely(0.2):
            at = self.chance.randrange(len(members))
            members[at] = (members[at][0], self.one((b"null", b'""', b"5", b"[]", b"{}", b"true", self.value(1))))
        self.chance.shuffle(members)
        return self._members(members)

    def body(self, events: Sequence[bytes]) -> bytes:
        """Put events into a body: a list, an object with options, lines, or something that is no body."""
        listed = b",".join(self.space() + event + self.space() for event in events)
        match self.chance.randrange(8):
            case 0 | 1:
                return self.space() + b"[" + listed + b"]" + self.space()
            case 2:
                return self.one((b"\n", b"\r\n", b"\n\n", b" \n\t", b"\r", b"")).join(events) + self.space()
            case 3 if self.rarely(0.3):
                return self.one((b"\xef\xbb\xbf[", b"[,", b"[[", b"{", b'{"events":', b"")) + listed + b"]"
            case _:
                members = [(self.one((b'"events"',) * 20 + (b'"event\\u0073"', b'"Events"')), b"[" + listed + b"]")]
                values = (b"true", b"false", b"null") * 5 + (b'"true"', b"1", b"{}")
                names = (b'"atomic"', b'"validate_only"', b'"validateOnly"') * 5 + (b'"events"', b'"x"')
                members += [(self.one(names), self.one(values)) for _ in range(self.chance.randrange(3))]
                self.chance.shuffle(members)
                return self._members(members)
