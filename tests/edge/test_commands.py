"""The commands other than `up`: keys, ledger, and their help."""

import asyncio
import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from headgate_server.cli import commands as cli
from headgate_server.store.opening import open_store
from tests.support import database
from tests.support.drafts import append, draft
from tests.support.edge import Edge, failure, statuses
from tests.support.up import headgate
from tests.support.waiting import until_true

KEY = re.compile(r"hg_[0-9A-Za-z]{43}\n")


def _run(*arguments: str, code: int = 0) -> str:
    done = headgate(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_key_from_making_to_revoking(any_edge: Edge) -> None:
    """A key works at once on a running server, and at most five seconds after it was revoked."""
    store = ("--store", any_edge.url)
    workspace = f"team-{any_edge.key[-8:].lower()}"
    scopes = ("--scope", "events:write", "--scope", "ledger:read")
    key = _run("keys", "create", *store, "--workspace", workspace, *scopes, "--expires-in", "1h")
    assert KEY.fullmatch(key)
    with closing(Edge(any_edge.up, any_edge.url, key.strip())) as made:
        assert statuses(made.batch({"type": "t"})) == ["accepted"]
        assert made.stored() == 1
        assert failure(made.http.get("/v1/events"))[0] == 403

        listed = _run("keys", "list", *store, "--workspace", workspace)
        assert key.strip() not in listed
        heading, line = listed.splitlines()
        assert heading.split() == ["ID", "KEY", "WORKSPACE", "SCOPES", "STATE", "LAST", "USED", "LIMITS", "NAME"]
        key_id, prefix, *_ = line.split("  ")
        assert key.startswith(prefix.rstrip("…"))
        assert "  valid until " in line
        told = json.loads(_run("keys", "list", *store, "--workspace", workspace, "--json"))
        assert (told["id"], told["workspace"], told["scopes"]) == (key_id, workspace, ["events:write", "ledger:read"])
        assert (told["state"], told["secret"]) == ("valid", "")

        _run("keys", "revoke", *store, key_id)
        until_true(lambda: made.http.get("/v1/ledger/head").status_code == 401, seconds=5)
    assert "  revoked " in _run("keys", "list", *store, "--workspace", workspace)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("create", "--workspace", "Not A Name", "--scope", "admin"), "not a valid", id="a bad workspace"),
        pytest.param(("create", "--workspace", "a", "--scope", "everything"), "everything", id="no such scope"),
        pytest.param(("create", "--workspace", "a"), "--scope", id="no scope"),
        pytest.param(("create", "--workspace", "a", "--scope", "admin", "--expires-in", "soon"), "soon", id="no time"),
        pytest.param(("list", "--workspace", "nobody"), "nobody", id="no such workspace"),
        pytest.param(("revoke", "key_0"), "key_0", id="no such key"),
    ],
)
def test_keys_that_cannot_be(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    CliRunner().invoke(cli.headgate, ["workspaces", "create", "other", "--data-dir", str(tmp_path)])
    done = CliRunner().invoke(cli.headgate, ["keys", arguments[0], "--data-dir", str(tmp_path), *arguments[1:]])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_embedded_store_needs_no_url(tmp_path: Path) -> None:
    assert KEY.fullmatch(_run("keys", "create", "--data-dir", str(tmp_path), "--workspace", "a", "--scope", "admin"))
    assert _run("ledger", "verify", "--data-dir", str(tmp_path)).endswith("\na: 0 events, sound\n")


def test_a_ledger_that_was_tampered_with(any_edge: Edge) -> None:
    any_edge.batch(*({"type": "t", "data": {"n": n}} for n in range(3)))
    listed = any_edge.http.get("/v1/events").json()["events"]
    lines = _run("keys", "list", "--store", any_edge.url).splitlines()
    workspace = next(line.split("  ")[2] for line in lines if line.split("  ")[1][:-1] == any_edge.key[:8])
    command = ("ledger", "verify", "--store", any_edge.url, "--workspace", workspace)
    assert _run(*command) == f"{workspace}: 3 events, sound\n"

    # Every workspace of the store has its own sequence: the second event of this one is named by its id.
    second = database.id_literal(any_edge.url, bytes.fromhex(listed[1]["id"].replace("-", "")))
    asyncio.run(database.execute(any_edge.url, f"UPDATE events SET type = 'other' WHERE id = {second}"))
    said = _run(*command, code=1)
    assert said.splitlines()[0] == f"{workspace}: 3 events, 1 breaks"
    assert "content_mismatch at sequence 2" in said
    asyncio.run(database.execute(any_edge.url, f"UPDATE events SET type = 't' WHERE id = {second}"))
    assert _run(*command) == f"{workspace}: 3 events, sound\n"


async def test_a_ledger_with_cells_of_other_types(sqlite_url: str) -> None:
    """Each is a break, and none ends the check of its own ledger or of the next ones."""
    store = await open_store(sqlite_url)
    for name in ("acme", "beta"):
        workspace = (await store.directory.create_workspace(name)).id
        await append(store, workspace, draft("a"), draft("b"), draft("c"))
    await store.close()
    await database.execute(sqlite_url, "UPDATE events SET salt = 'abc', receiver = x'ff' WHERE sequence = 2")
    await database.execute(sqlite_url, "UPDATE workspaces SET rates = 'no JSON'")
    said = await asyncio.to_thread(headgate, "ledger", "verify", "--store", sqlite_url)
    assert said.returncode == 1
    assert said.stderr == ""
    assert re.findall(r"^\S+: 3 events, 2 breaks$", said.stdout, re.MULTILINE) == [
        "acme: 3 events, 2 breaks",
        "beta: 3 events, 2 breaks",
    ]
    assert said.stdout.count("expected salt: 16 bytes, found salt: text of 3 characters") == 2


@pytest.mark.parametrize("workspace", ["nobody", "\udcff", "a\tb"])
def test_a_ledger_that_is_not_there(tmp_path: Path, workspace: str) -> None:
    _run("workspaces", "create", "other", "--data-dir", str(tmp_path))
    done = headgate("ledger", "verify", "--data-dir", str(tmp_path), "--workspace", workspace)
    assert done.returncode == 2
    assert done.stderr == f"headgate: there is no workspace {workspace!r}\n"


@pytest.mark.parametrize(
    "command",
    [
        *("audit", "keys list", "keys revoke key_0", "keys rotate key_0", "keys set key_0 --name a"),
        *("ledger verify", "ledger heads", "workspaces list", "workspaces set a --quota 1"),
        *("events list --workspace a", "rejections list --workspace a", "destinations list --workspace a"),
        *("event-types list --workspace a", "backup --out copy"),
    ],
)
def test_a_store_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """A mistyped path is no sound, empty store, and none is made there."""
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "mistyped" / "headgate.db"
    done = CliRunner().invoke(cli.headgate, [*command.split(), "--store", f"sqlite:///{store}"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"headgate: There is no store {store}.\n"
    assert not list(tmp_path.iterdir())


COMMANDS = [(), ("up",), ("serve",), ("bridge",), ("keys",), ("keys", "create"), ("keys", "list"), ("keys", "revoke")]
COMMANDS += [("ledger",), ("ledger", "verify"), ("workspaces",), ("workspaces", "list"), ("workspaces", "set")]
COMMANDS += [("audit",), ("keys", "rotate"), ("keys", "set"), ("workspaces", "create")]
COMMANDS += [("event-types",), *(("event-types", name) for name in ("put", "get", "list", "delete"))]
COMMANDS += [("rejections",), ("rejections", "list"), ("rejections", "show"), ("rejections", "replay")]
COMMANDS += [("destinations",), *(("destinations", name) for name in ("create", "list", "pause", "replay", "failures"))]


@pytest.mark.parametrize("command", [pytest.param(command, id=" ".join(command) or "headgate") for command in COMMANDS])
def test_help(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli.headgate, [*command, "--help"], prog_name="headgate")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Usage: {' '.join(('headgate', *command))} ")
    assert max(map(len, done.stdout.splitlines())) <= 110
    assert not re.search(r"\[[A-Z]+\|", done.stdout), "choices are written in small letters"


def test_help_names_what_scripts_rely_on() -> None:
    said = _run("up", "--help")
    for option in ("--store", "--data-dir", "--grpc-port", "--http-port", "HEADGATE_STORE", "50051", "8080"):
        assert option in said, option
    done = CliRunner().invoke(cli.headgate, ["--version"], prog_name="headgate")
    assert re.fullmatch(r"headgate, version \d+\.\d+\.\d+\n", done.stdout)
    assert re.fullmatch(r"core: (compiled|pure Python).*\n", done.stderr)
