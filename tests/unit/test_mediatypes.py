"""Media types are parsed, never matched as text."""

import pytest

from headgate_server.core.mediatypes import parse, preferred

CLOUD, PLAIN = "application/cloudevents+json", "application/json"


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("application/json", "application/json", {}),
        (" Application/CloudEvents+JSON ; Charset=UTF-8", CLOUD, {"charset": "UTF-8"}),
        ('text/plain;charset="utf\\-8" ; a=b', "text/plain", {"charset": "utf-8", "a": "b"}),
        ("text/plain;", "text/plain", {}),
        ("text/plain; ; a=b; a=c", "text/plain", {"a": "b"}),
        ('a/b; c="d;e=f, \\"g"', "a/b", {"c": 'd;e=f, "g'}),
    ],
)
def test_a_media_type(text: str, name: str, parameters: dict[str, str]) -> None:
    media = parse(text)
    assert media is not None
    assert (media.name, media.parameters) == (name, parameters)


@pytest.mark.parametrize("text", ["", "json", "a/b c", "a/b;c", "a/b;c=", 'a/b;c="d', "a/b, c/d", "ä/b", "a/b;c=d e"])
def test_what_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "is_json", "is_text", "is_utf8"),
    [
        ("application/json", True, False, True),
        ("application/vnd.x+JSON; charset=latin1", True, False, False),
        ("application/jsonx", False, False, True),
        ("text/csv; charset=US-ASCII", False, True, True),
        ("image/svg+xml", False, True, True),
        ("application/octet-stream", False, False, True),
    ],
)
def test_its_content(text: str, is_json: bool, is_text: bool, is_utf8: bool) -> None:
    media = parse(text)
    assert media is not None
    assert (media.is_json, media.is_text, media.is_utf8) == (is_json, is_text, is_utf8)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, PLAIN),
        ("", PLAIN),
        ("*/*", PLAIN),
        ("application/*", PLAIN),
        ("text/html", PLAIN),
        (CLOUD, CLOUD),
        ("APPLICATION/cloudevents+JSON; charset=utf-8", CLOUD),
        (f"{CLOUD};q=0, {PLAIN}", PLAIN),
        (f"{CLOUD};q=0.5, {PLAIN};q=0.4", CLOUD),
        (f"{PLAIN}, {CLOUD}", PLAIN),
        (f"{CLOUD}, {PLAIN}", CLOUD),
        (f"*/*;q=0.1, {CLOUD}", CLOUD),
        (f"*/*, {CLOUD}", CLOUD),
        (f'text/x;a="{CLOUD}, b", */*', PLAIN),
        (f"{CLOUD};q=x", PLAIN),
        (f",,{CLOUD},", CLOUD),
    ],
)
def test_what_a_reader_prefers(accept: str | None, wanted: str) -> None:
    assert preferred(accept, (PLAIN, CLOUD)) == wanted
