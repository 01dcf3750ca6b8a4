"""Media types, parsed: `Content-Type`, and what `Accept` prefers (RFC 9110, 8.3.1 and 12.5.1). Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"[ \t]*({_WORD})/({_WORD})[ \t]*")
_PARAMETER = re.compile(rf';[ \t]*(?:({_WORD})=({_WORD}|"(?:[^"\\]|\\.)*"))?[ \t]*')
_ESCAPED = re.compile(r"\\(.)")
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_REFUSED = (0.0, 0, 0)
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class MediaType(NamedTuple):
    """A media type. Its name and the names of its parameters are in lower case."""

    name: str
    """Type and subtype, "application/json"."""
    parameters: Mapping[str, str]

    @property
    def is_json(self) -> bool:
        """Whether its content is JSON: the subtype is `json` or ends with `+json`."""
        return self.name.endswith(("/json", "+json"))

    @property
    def is_text(self) -> bool:
        """Whether its content is text for people: any type `text/*`, and XML."""
        return self.name.startswith("text/") or self.name.endswith(("/xml", "+xml"))

    @property
    def is_utf8(self) -> bool:
        """Whether its charset is UTF-8, a part of it, or not named."""
        return self.parameters.get("charset", "utf-8").lower() in _UTF_8


def parse(text: str) -> MediaType | None:
    """Return the media type of a `Content-Type`, None if it is not one."""
    found = _TYPE.match(text)
    if found is None:
        return None
    parameters: dict[str, str] = {}
    at = found.end()
    while at < len(text):
        parameter = _PARAMETER.match(text, at)
        if parameter is None:
            return None
        name, value = parameter.groups()
        if name is not None:
            quoted = value.startswith('"')
            parameters.setdefault(name.lower(), _ESCAPED.sub(r"\1", value[1:-1]) if quoted else value)
        at = parameter.end()
    return MediaType(f"{found[1]}/{found[2]}".lower(), parameters)


def preferred(accept: str | None, offered: Sequence[str]) -> str:
    """Return the offered media type that a header `Accept` prefers. Where several have the same quality, one that is
    named comes before one of a range, and then the one that is named first; at last, the one that is offered first.
    """
    ranges = [media for each in _ELEMENT.findall(accept or "*/*") if (media := parse(each)) is not None]
    ranks = [_rank(each, ranges) for each in offered]
    return offered[ranks.index(max(ranks))]


def _rank(offered: str, ranges: Sequence[MediaType]) -> tuple[float, int, int]:
    """Return the quality that the most specific range gives to a media type, and what decides between equals."""
    for specificity, name in ((2, offered), (1, f"{offered.partition('/')[0]}/*"), (0, "*/*")):
        for position, media in enumerate(ranges):
            if media.name == name:
                quality = _quality(media)
                return (quality, specificity, -position) if quality else _REFUSED
    return _REFUSED


def _quality(media: MediaType) -> float:
    try:
        return min(1.0, max(0.0, float(media.parameters.get("q", "1"))))
    except ValueError:
        return 0.0
