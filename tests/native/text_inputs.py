"""Draws texts, spells them in JSON, and decides what is rare in an input: `fuzz.py` compares both cores on the inputs.

Damaged bytes rarely get past the first check. So most inputs are valid, and odd in a few places each.
"""

import random

_CHARACTERS = (
    "a", "b", "z", "A", "0", " ", "~", "\x7f", "é", "ß", "ÿ", "Ā", "߿", "ࠀ", "ἀ", "ﬀ", "\u2028", "\ufeff", "\ufffd",
    "\ufffe", "\uffff", "\ue000", "\ud7ff", "e\u0301", "𐀀", "👍", "\U0010ffff", "\U0001f3ff", "\u200d", "\u0131", "İ",
)  # fmt: skip
_SPECIAL = ('"', "\\", "/", "\n", "\t", "\r", "\b", "\f", "\x00", "\x01", "\x1f", "\x0b")
NOT_UTF8 = (b"\xff", b"\xc0\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xf0\x9f\x91")
_NAMES = ("a", "b", "aa", "a:", "", "é", "type", "data", "\uffff", "\U00010000", "\ue000", "1", "10", "2", '"', "\n")
_LENGTHS = (0, 1, 2, 127, 128, 254, 255, 256, 257, 300)


class TextInputs:
    """Draws texts from a source of chance, and decides what is rare."""

    def __init__(self, chance: random.Random):
        self.chance = chance
        self.oddness = 1.0
        self.one = chance.choice

    def rarely(self, part: float = 0.03) -> bool:
        """Whether something rare is drawn, in this input more or less often than in others."""
        return self.chance.random() < part * self.oddness

    def turn(self) -> None:
        """Begin another input: some have nothing rare at all."""
        self.oddness = self.chance.choice((0.0, 0.0, 0.3, 1.0, 1.0, 3.0))

    def text(self) -> str:
        """Draw a text for a field."""
        if self.rarely(0.15):
            # Limits count characters, so the same length in other bytes is tried too.
            return self.one(_CHARACTERS) * self.one(_LENGTHS)
        drawn = [self.one(_CHARACTERS) for _ in range(self.chance.randrange(1, 6))]
        if self.rarely(0.1):
            drawn.append(self.one(_SPECIAL))
        return "".join(drawn)

    def name(self) -> str:
        """Draw a name of a member: one of few, so that names meet."""
        return self.one(_NAMES) if self.chance.random() < 0.8 else self.text()

    def json_text(self, text: str) -> bytes:
        """Spell a text in JSON: each character as it is, or escaped in any way."""
        spelt = [self._spelt(character) for character in text]
        if self.rarely(0.01):
            lone = (b"\\ud800", b"\\uDFFF", b"\\udc00\\ud800", b"\\u12", b"\\x41", b"\\", b"\n", *NOT_UTF8)
            spelt.insert(self.chance.randrange(len(spelt) + 1), self.one(lone))
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
        form = self.one(("\\u%04x", "\\u%04X"))
        return "".join(form % int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)).encode()

    def space(self) -> bytes:
        """Draw white space, mostly none."""
        return self.one((b" ", b"\n", b"\t", b"\r\n", b"  ", b"\x0b", b"\xc2\xa0")) if self.rarely(0.02) else b""
