"""`headgate import` against a server: every event once, whatever happens to the import."""

import asyncio
import contextlib
import fcntl
import gzip
import json
import os
import pty
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headgate_client import Client
from headgate_server.cli.commands import headgate
from headgate_server.core.model import Scope
from tests.client.conftest import Served
from tests.support.service import make_key
from tests.support.up import HEADGATE
from tests.support.waiting import until_true

KILLS = int(os.environ.get("HEADGATE_KILLS", "4"))
LINES = int(os.environ.get("HEADGATE_LINES", 2_000 + 400 * KILLS))

Import = Callable[..., Result]


@pytest.fixture
def run(served: Served, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Return the command, run in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def import_(*arguments: str, key: str = key, **more: Any) -> Result:
        return CliRunner().invoke(headgate, ["import", "--url", served.address, "--key", key, *arguments], **more)

    return import_


def _lines(path: Path, *events: Any) -> Path:
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in events))
    return path


def _events(served: Served, key: str) -> list[Any]:
    with Client(served.address, api_key=key) as client:
        return list(client.list().events())


def test_lines_are_stored_in_their_order_and_the_others_reported(
    run: Import, served: Served, key: str, tmp_path: Path
) -> None:
    event = {"type": "t", "data": {"price": 1}, "idempotency_key": "k"}
    other = event | {"data": {"price": 2}}
    _lines(tmp_path / "a.ndjson", event, "{", {"type": ""}, other, event, {"type": "u", "source": "s"})
    done = run("a.ndjson", "--rejects", "r.ndjson", "--batch-size", "2")
    assert done.exit_code == 1
    assert done.output.startswith("imported: 2 accepted, 1 conflict, 1 duplicate, 2 rejected (6 in ")
    assert done.output.endswith("; r.ndjson says why\n")
    rejects = [json.loads(line) for line in (tmp_path / "r.ndjson").read_text().splitlines()]
    assert [(each["line"], each["status"], each["reason"], each["field"]) for each in rejects] == [
        (2, "rejected", "MALFORMED_JSON", ""),
        (3, "rejected", "MISSING_FIELD", "type"),
        (4, "conflict", "IDEMPOTENCY_CONFLICT", "idempotency_key"),
    ]
    assert json.loads(rejects[2]["record"]) == other
    assert [(stored.type, stored.source) for stored in _events(served, key)] == [("t", ""), ("u", "s")]
    assert sorted(os.listdir(tmp_path)) == ["a.ndjson", "r.ndjson"]


def test_a_second_import_of_the_same_file_stores_nothing(run: Import, served: Served, key: str, tmp_path: Path) -> None:
    """Also of a packed copy under another name, because the keys come from the name that both got."""
    _lines(tmp_path / "a.ndjson", *[{"type": "t", "data": {"n": n}} for n in range(5)])
    (tmp_path / "b.gz").write_bytes(gzip.compress((tmp_path / "a.ndjson").read_bytes()))
    assert run("a.ndjson", "--name", "march").output.startswith("imported: 5 accepted (5 in ")
    for file in ("a.ndjson", "b.gz"):
        done = run(file, "--name", "march")
        assert (done.exit_code, done.output.partition(" (")[0]) == (0, "imported: 5 duplicate")
    for content in (tmp_path / "a.ndjson", tmp_path / "b.gz"):
        piped = [*HEADGATE, "import", "-", "--url", served.address, "--key", key, "--name", "march"]
        said = subprocess.run(piped, input=content.read_bytes(), capture_output=True, check=True).stdout
        assert said.startswith(b"imported: 5 duplicate (5 in ")
    assert [stored.data for stored in _events(served, key)] == [{"n": n} for n in range(5)]


def test_rows_of_csv_with_types_and_a_map(run: Import, served: Served, key: str, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(
        'when,name,amount,note\n2024-01-15T10:30:00Z,order,49.90,"two\nlines"\n,order,x,\n,order,7,\n', "utf-8-sig"
    )
    (tmp_path / "s.json").write_text('{"properties":{"amount":{"type":"number"}}}')
    options = ("--map", "type=name", "--map", "occurred_at=when", "--source", "shop", "--schema", "s.json")
    checked = run("b.csv", *options, "--dry-run")
    assert (checked.exit_code, checked.output.partition(" (")[0]) == (1, "checked: 1 rejected, 2 valid")
    assert _events(served, key) == []
    assert run("b.csv", *options).output.startswith("imported: 2 accepted, 1 rejected")
    first, second = _events(served, key)
    assert (first.type, first.source, first.data) == ("order", "shop", {"amount": 49.9, "note": "two\nlines"})
    assert first.occurred_at.isoformat() == "2024-01-15T10:30:00+00:00"
    assert (second.data, second.occurred_at) == ({"amount": 7}, None)


def test_kills_lose_nothing_and_store_nothing_twice(served: Served, key: str, tmp_path: Path, run: Import) -> None:
    """`make kill-import` is the long run. Counts and rejects are those of an import that was never killed."""
    events = [{"type": "t" if n % 100 else "", "data": {"n": n}} for n in range(LINES)]
    _lines(tmp_path / "a.ndjson", *events)
    size = "20" if LINES < 100_000 else "500"
    arguments = ("a.ndjson", "--url", served.address, "--key", key, "--rejects", "r.ndjson", "--batch-size", size)
    drawn, started = random.Random(KILLS), time.monotonic()
    # One kill in each part of the file but the last: at a random line, and a random moment after it.
    part = LINES * 4 // 5 // KILLS
    for kills in range(KILLS):
        with subprocess.Popen([*HEADGATE, "import", *arguments], stdout=subprocess.DEVNULL, cwd=tmp_path) as process:
            before, line = _imported(tmp_path), kills * part + drawn.randrange(part)
            while process.poll() is None and (_imported(tmp_path) == before or _imported(tmp_path) < line):
                time.sleep(0.002)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(drawn.uniform(0, 0.1))
            process.kill()
        assert process.returncode == -signal.SIGKILL, "the import ended before its kill"
    done = subprocess.run([*HEADGATE, "import", *arguments], stdout=subprocess.PIPE, cwd=tmp_path, check=False)
    print(f"{KILLS} kills, {LINES / (time.monotonic() - started):,.0f} lines/s with them: {done.stdout.decode()}")
    bad = LINES // 100
    assert done.returncode == 1
    assert done.stdout.decode().startswith(f"imported: {LINES - bad:,} accepted, {bad:,} rejected (")
    assert [stored.data["n"] for stored in _events(served, key)] == [n for n in range(LINES) if n % 100]
    rejects = [json.loads(line)["line"] for line in (tmp_path / "r.ndjson").read_text().splitlines()]
    assert rejects == [n + 1 for n in range(0, LINES, 100)]


def _imported(folder: Path) -> int:
    """Return the number of lines that the import has behind it."""
    try:
        return int(json.loads((folder / "a.ndjson.headgate-import").read_bytes())["lines"])
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("name", ["a[/b[red].ndjson", "-"])
def test_a_terminal_shows_how_far_it_is_its_rate_and_the_time_left(
    served: Served, key: str, tmp_path: Path, name: str
) -> None:
    """The name of a file is text, whatever is in it. Standard input has no length, and so no time left."""
    content = json.dumps({"type": "t"}) + "\n"
    if name != "-":
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content * 3)
    screen, terminal = pty.openpty()
    shown: list[bytes] = []
    reading = threading.Thread(target=_read_to_end, args=(screen, shown))
    reading.start()
    done = subprocess.run(
        [*HEADGATE, "import", name, "--url", served.address, "--key", key],
        input=content.encode() * 3 if name == "-" else b"",
        stdout=subprocess.PIPE,
        stderr=terminal,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        check=True,
    )
    os.close(terminal)
    reading.join(10)
    assert done.stdout.startswith(b"imported: 3 accepted")
    screenful = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(shown).decode())
    assert re.search(r"3 records, [0-9,]+/s", screenful), screenful
    if name != "-":
        assert name in screenful
        assert "100%" in screenful
        assert "0:00:00" in screenful


def _read_to_end(screen: int, shown: list[bytes]) -> None:
    """Read what is shown until the other side is closed, which Linux tells as an error."""
    with contextlib.suppress(OSError):
        while part := os.read(screen, 4096):
            shown.append(part)
    os.close(screen)


def test_what_does_not_continue_an_import(run: Import, served: Served, key: str, tmp_path: Path) -> None:
    limited = asyncio.run(make_key(served.store, "stopped"))
    limit = ["workspaces", "set", "stopped", "--store", served.store, "--quota", "1"]
    assert CliRunner().invoke(headgate, limit).exit_code == 0
    _lines(tmp_path / "a.ndjson", {"type": "t"}, {"type": "t"})
    options = ("a.ndjson", "--batch-size", "1")
    assert "stopped after line 1: " in run(*options, key=limited).output
    other = run(*options, "--type", "u")
    assert (other.exit_code, "was begun with other options" in other.output) == (2, True)
    content = (tmp_path / "a.ndjson").read_bytes()
    _lines(tmp_path / "a.ndjson", {"type": "t"}, {"type": "u"})
    os.utime(tmp_path / "a.ndjson", (0, 0))
    changed = run(*options)
    assert (changed.exit_code, "was changed since its import began" in changed.output) == (2, True)
    (tmp_path / "a.ndjson").write_bytes(content)  # the same content at another time is the same file
    assert run(*options).output.startswith("imported: 2 accepted (1 in ")
    (tmp_path / "a.ndjson.headgate-import").write_text("{")
    broken = run(*options)
    assert (broken.exit_code, "remove it to begin again" in broken.output) == (2, True)
    (tmp_path / "a.ndjson.headgate-import").unlink()
    assert run(*options).exit_code == 0


def test_an_import_that_has_not_stored_anything_may_begin_anew(run: Import, tmp_path: Path) -> None:
    _lines(tmp_path / "a.ndjson", {"source": "s"})
    refused = run("a.ndjson", "--type", "t", key="hg_nobody")
    assert (refused.exit_code, "stopped after line 0: " in refused.output) == (2, True)
    assert run("a.ndjson", "--type", "u").output.startswith("imported: 1 accepted (1 in ")


def test_two_imports_of_one_file_at_once(run: Import, tmp_path: Path) -> None:
    _lines(tmp_path / "a.ndjson", {"type": "t"})
    with (tmp_path / "a.ndjson").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other = run("a.ndjson")
    assert (other.exit_code, "another import of a.ndjson is running" in other.output) == (2, True)


def test_an_import_stops_at_the_quota_and_continues_after_it(run: Import, served: Served, tmp_path: Path) -> None:
    key = asyncio.run(make_key(served.store, "limited"))
    _lines(tmp_path / "a.ndjson", *[{"type": "t", "data": {"n": n}} for n in range(6)])
    for quota, code in (("3", 2), ("4", 2), ("none", 0)):
        limit = ["workspaces", "set", "limited", "--store", served.store, "--quota", quota]
        assert CliRunner().invoke(headgate, limit).exit_code == 0
        done = run("a.ndjson", "--batch-size", "2", key=key)
        assert done.exit_code == code, done.output
        if code:
            assert "QUOTA_EXCEEDED" in done.output
            assert f"stopped after line {int(quota) // 2 * 2}: " in done.output
    assert [stored.data for stored in _events(served, key)] == [{"n": n} for n in range(6)]


def test_refusals(run: Import, served: Served, tmp_path: Path) -> None:
    _lines(tmp_path / "a.ndjson", {"type": "t"})
    for arguments, said in (
        (("nowhere.ndjson",), "cannot read nowhere.ndjson: No such file"),
        (("a.ndjson", "--map", "kind=a"), "is not FIELD=COLUMN"),
        (("a.ndjson", "--schema", "s.json"), "cannot read s.json"),
        (("a.ndjson", "--delimiter", ";"), "--schema and --delimiter are for CSV"),
        (("a.ndjson", "--format", "csv", "--delimiter", ";;"), "--delimiter is one character"),
        (("a.ndjson", "--rejects", "none/r.ndjson"), "cannot write none/r.ndjson"),
        (("a.ndjson", "--name", ""), "--name has 1 to 200 characters"),
        (("a.ndjson", "--url", "ftp://x"), "ftp"),
        (("a.ndjson", "--key", ""), "there is no API key: give --key, or set HEADGATE_KEY"),
    ):
        done = run(*arguments)
        assert (done.exit_code, said in done.output) == (2, True), (arguments, done.output)
    reader = run("a.ndjson", key=served.key(Scope.EVENTS_READ))
    assert (reader.exit_code, "MISSING_SCOPE" in reader.output) == (2, True)


@pytest.fixture
def limited(served: Served) -> str:
    """Return a key of a workspace that may store one event."""
    workspace = f"limited-{os.urandom(4).hex()}"
    key = asyncio.run(make_key(served.store, workspace))
    limit = ["workspaces", "set", workspace, "--store", served.store, "--quota", "1"]
    assert CliRunner().invoke(headgate, limit).exit_code == 0
    return key


def test_an_error_ends_an_import_that_waits_for_its_next_line(served: Served, limited: str, tmp_path: Path) -> None:
    """Whoever writes to the pipe may have no more for hours. What was acknowledged is reported."""
    command = [*HEADGATE, "import", "-", "--url", served.address, "--key", limited, "--batch-size", "1"]
    with _piped(command, tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"type":"t"}\n' * 2)
        process.stdin.flush()
        assert process.wait(60) == 2, "its standard input is still open"
        said = process.stderr.read().decode() if process.stderr else ""
    assert said.startswith("headgate: stopped after line 1: ")
    assert "QUOTA_EXCEEDED" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("more", [(), ("--format", "csv")], ids=["ndjson", "csv"])
@pytest.mark.parametrize("content", [b"", b"type\nt\nt\n"], ids=["nothing", "some"])
def test_ctrl_c_ends_an_import_that_waits_for_its_next_line(
    served: Served, key: str, tmp_path: Path, content: bytes, more: tuple[str, ...]
) -> None:
    command = [*HEADGATE, "import", "-", "--url", served.address, "--key", key, "--rejects", "r.ndjson", *more]
    with _piped(command, tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(content)
        process.stdin.flush()
        until_true((tmp_path / "r.ndjson").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, "its standard input is still open"
        assert process.stderr is not None
        assert process.stderr.read() == b""


@contextlib.contextmanager
def _piped(command: list[str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command whose standard input stays open."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_pipe_in_the_place_of_the_file(run: Import, served: Served, key: str, tmp_path: Path) -> None:
    """It can be read only once, so that it has no digest and no state, as standard input has none."""
    lines = b"".join(b'{"type":"t","data":{"n":%d}}\n' % n for n in range(4_000))
    os.mkfifo(tmp_path / "pipe")
    for arguments, said in ((("--dry-run",), "checked: 4,000 valid ("), ((), "imported: 4,000 accepted (")):
        writing = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(lines,), daemon=True)
        writing.start()
        done = run("pipe", *arguments)
        writing.join(60)
        assert (done.exit_code, done.output[: len(said)]) == (0, said), done.output
    assert [stored.data["n"] for stored in _events(served, key)] == list(range(4_000))
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("rejects", ["a.csv", "./a.csv", "link", "s.json", "a.csv.headgate-import"])
@pytest.mark.parametrize("more", [("--dry-run",), ()], ids=["dry", "sent"])
def test_rejects_in_the_place_of_what_is_read(run: Import, tmp_path: Path, rejects: str, more: tuple[str, ...]) -> None:
    """The rejects would overwrite the file, and be read as its next lines, for ever."""
    (tmp_path / "a.csv").write_bytes(b'type\n"\n' * 2_000)
    (tmp_path / "link").symlink_to("a.csv")
    (tmp_path / "s.json").write_text('{"properties":{}}')
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    done = run("a.csv", "--schema", "s.json", "--rejects", rejects, *more)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("headgate: --rejects ")
    assert " would overwrite " in done.stderr
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "option", ["--type", "--source", "--name", "--data-columns", "--delimiter", "--url", "--key", "--encoding"]
)
def test_options_that_are_not_utf_8(run: Import, tmp_path: Path, option: str) -> None:
    _lines(tmp_path / "a.ndjson", {"type": "t"})
    done = run("a.ndjson", option, "\udcff")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("headgate: ")
    assert option in done.stderr or "is not an encoding" in done.stderr
    assert os.listdir(tmp_path) == ["a.ndjson"]


def test_names_of_files_that_are_not_utf_8(run: Import, tmp_path: Path) -> None:
    _lines(tmp_path / "\udcff.ndjson", {"type": "t"})
    done = run("\udcff.ndjson", "--rejects", "\udcfe.ndjson")
    assert done.exit_code == 0, done.exception
    assert sorted(os.listdir(tmp_path)) == ["\udcfe.ndjson", "\udcff.ndjson"]
