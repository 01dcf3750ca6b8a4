"""Reading the records of a file: each record that cannot be read is a problem in its own place."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate_server.cli.importing import source as sources
from headgate_server.cli.importing.records import Place, Record, Rows, json_lines
from headgate_server.cli.importing.source import MOST_BYTES, Source
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Problem

Opened = Callable[..., Source]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Return a function that writes a file and opens it as the source of an import."""
    made: list[Source] = []

    def open_(content: bytes, encoding: str = "utf-8") -> Source:
        file = tmp_path / f"file-{len(made)}"
        file.write_bytes(content)
        made.append(Source(str(file), encoding))
        return made[-1]

    yield open_
    for source in made:
        source.close()


def _plain(value: Any) -> Any:
    return value.reason.value if isinstance(value, Problem) else value


def _values(records: Iterator[Record]) -> list[tuple[int, Any]]:
    return [(record.line, _plain(record.value)) for record in records]


def test_each_line_is_a_value_of_its_own(opened: Opened) -> None:
    source = opened(b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"a":\n"x"\n\xff\n{"b":2.50}')
    assert _values(json_lines(source, Place())) == [
        (1, {"a": 1}),
        (4, "MALFORMED_JSON"),
        (5, "x"),
        (6, "MALFORMED_JSON"),
        (7, {"b": 2.5}),
    ]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-32-be"])
def test_every_encoding_and_gzip(opened: Opened, encoding: str, packed: bool) -> None:
    content = '{"a":"é"}\n{"a":"ü"}\n'.encode(encoding)
    source = opened(gzip.compress(content) if packed else content, encoding)
    assert _values(json_lines(source, Place())) == [(1, {"a": "é"}), (2, {"a": "ü"})]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_it_continues_after_any_record(opened: Opened, kind: str, encoding: str, packed: bool) -> None:
    text = '{"a":"é"}\n\n{"a":2}\n{"a":\n{"a":4}\n' if kind == "json" else 'a,b\r\n1,"é\r\n2"\r\n\r\n3\r\n"4",5\r\n'
    content = text.encode(encoding)

    def read(start: Place) -> list[Record]:
        source = opened(gzip.compress(content) if packed else content, encoding)
        return list(json_lines(source, start) if kind == "json" else Rows(source, ",").read(start))

    records = read(Place())
    assert len(records) == (4 if kind == "json" else 3)
    for count, record in enumerate(records, 1):
        assert read(record.after) == records[count:]


def test_a_line_that_is_too_long_is_skipped_to_its_end(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b'{"a":"' + b"x" * 100 + b'"}', b" " * 100):
        monkeypatch.setattr(sources, "MOST_BYTES", 20)
        records = list(json_lines(opened(content + b'\n{"b":1}\n' + content), Place()))
        assert [(record.line, _plain(record.value)) for record in records] == [
            (1, "TOO_LONG"),
            (2, {"b": 1}),
            (3, "TOO_LONG"),
        ]
        assert all(len(record.text) <= 20 for record in records)


def test_rows_of_csv(opened: Opened) -> None:
    rows = Rows(opened(b'\xef\xbb\xbfname,note\n1,"two\nlines, and a ""quote"""\n\n2\n3,\xff\n4,"a"b\n5,\x00\n'), ",")
    assert rows.columns == ["name", "note"]
    assert _values(rows.read(Place())) == [
        (2, {"name": "1", "note": 'two\nlines, and a "quote"'}),
        (5, "MALFORMED_EVENT"),
        (6, "INVALID_UNICODE"),
        (7, "MALFORMED_EVENT"),
        (8, {"name": "5", "note": "\x00"}),
    ]


def test_a_quote_that_is_never_closed_touches_the_rows_that_it_opened_before(opened: Opened) -> None:
    """What follows the longest possible cell is read again as rows."""
    filler = b"x" * 1_000_000 + b"\n"
    content = b'a\n1\n"2\n' + filler * 9 + b"3\n"
    values = [_plain(record.value) for record in Rows(opened(content), ",").read(Place())]
    assert values[0] == {"a": "1"}
    assert values[1] == "MALFORMED_EVENT"
    assert values[-1] == {"a": "3"}
    assert 9 * len(filler) > MOST_BYTES


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"a,a\n", "the column 'a' twice", id="twice"),
        pytest.param(b"a,\n", "a column without a name", id="no name"),
        pytest.param(b'"a"b\n', "has no names of columns", id="no csv"),
        pytest.param(b"\xff\n", "has no names of columns", id="no text"),
    ],
)
def test_headers_that_cannot_be(opened: Opened, content: bytes, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        Rows(opened(content), ",")


def test_an_empty_file_has_no_records(opened: Opened) -> None:
    assert list(json_lines(opened(b""), Place())) == []
    assert list(Rows(opened(b""), ",").read(Place())) == []


def test_damaged_files(opened: Opened) -> None:
    content = gzip.compress(b'{"a":1}\n' * 100_000)
    for damaged in (content[:-9], content[: len(content) // 2], content[:-8] + bytes(8)):
        with pytest.raises(SetupError, match="is damaged after"):
            list(json_lines(opened(damaged), Place()))
    with pytest.raises(SetupError, match="has another encoding after"):
        list(json_lines(opened("{}\n".encode("utf-16") + b"\x00\xd8\x00", "utf-16"), Place()))


@pytest.mark.parametrize(
    ("name", "encoding", "said"),
    [
        *(
            ("nowhere", "utf-8", "No such file"),
            (".", "utf-8", "Is a directory"),
            ("x", "klingon", "is not an encoding"),
        ),
        # Names that Python knows, of what is no encoding of text.
        *((__file__, name, "is not an encoding") for name in ("hex", "rot13", "zlib", "undefined", "\udcff", "a\0")),
        *((__file__, name, "is not an encoding") for name in ("", "x" * 100_000)),
    ],
)
def test_files_that_cannot_be(name: str, encoding: str, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        Source(name, encoding)


def test_a_row_in_an_encoding_whose_faults_are_in_letters(opened: Opened) -> None:
    """A fault of UTF-7 is no byte that Python lets pass as a surrogate."""
    rows = Rows(opened(b"a\nx\n+2AB-\ny\n", "utf-7"), ",").read(Place())
    assert _values(rows) == [(2, {"a": "x"}), (3, "INVALID_UNICODE"), (4, {"a": "y"})]


def test_a_file_whose_first_bytes_cannot_be_read() -> None:
    source = Source("/proc/self/mem", "utf-8")
    with pytest.raises(SetupError, match="is damaged after 0 bytes"):
        source.line()
    source.close()
