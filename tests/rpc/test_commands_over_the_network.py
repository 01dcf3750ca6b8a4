"""Commands for destinations and rejections: the same at the store and at a service over the network."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from headgate_server.access import admin
from headgate_server.access.auth import digest_of
from headgate_server.cli.commands import headgate
from headgate_server.core.audit import RESERVED
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Scope
from tests.support.calls import Caller, event
from tests.support.inprocess import Service, serving
from tests.support.rejection_desk import Desk
from tests.support.service import Client, ServerProcess, make_key
from tests.support.waiting import until

NUMBER = "12345678901234567890.10"
BATCH = (
    b'{"events": [{"type": "a", "data": {"n": 1}}, {"source": "shop", "data": {"amount": ' + NUMBER.encode() + b"}},"
    b' {"type": "b", "occurred_at": "yesterday"}]}'
)


class Said(NamedTuple):
    """What a command said, and its exit code."""

    out: str
    err: str
    code: int


class Shell:
    """Runs commands for one workspace of a service, at its store and over the network."""

    def __init__(self, service: Service, key: str, workspace: str = "acme"):
        self.store = ("--store", service.url, "--workspace", workspace)
        self._address = (f"127.0.0.1:{service.port}", "--key", key)

    async def at_store(self, group: str, command: str, *arguments: str) -> Said:
        """Run a command at the store."""
        return await self._run(group, command, *self.store, *arguments)

    async def over_the_network(self, group: str, command: str, *arguments: str) -> Said:
        """Run a command with the service's address and a key. It knows the workspace of its key."""
        flag = "--service" if group == "destinations" else "--url"
        return await self._run(group, command, flag, *self._address, *arguments)

    async def both(self, group: str, command: str, *arguments: str, code: int = 0, said: str = "") -> str:
        """Run a command in both ways, compare all that they say, and return what they print."""
        here = await self.at_store(group, command, *arguments)
        assert here == await self.over_the_network(group, command, *arguments)
        assert (here.code, said in here.err) == (code, True), here
        return here.out

    @staticmethod
    async def _run(*arguments: str) -> Said:
        done = await asyncio.to_thread(CliRunner().invoke, headgate, list(arguments))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Said(done.stdout, done.stderr, done.exit_code)


@pytest.fixture
async def service(sqlite_url: str) -> AsyncIterator[Service]:
    """Run a server. Where a command works makes no difference to a store, so one dialect is enough."""
    # The log of a server in this process would be among what a command says.
    with capture_logs():
        async with serving(sqlite_url) as running:
            yield running


@pytest.fixture
async def shell(service: Service) -> Shell:
    """Return a shell of a key with every scope."""
    return Shell(service, await service.key())


async def test_destinations(shell: Shell, caller: Caller) -> None:
    await caller.batch(event(type="order.paid"), event(type="ping"))
    # The server may not reach this network, so each attempt fails.
    blocked = ("--name", "crm", "--url", "http://127.0.0.1:9/", "--type", "order.*", "--start", "beginning")
    refused = await shell.over_the_network("destinations", "create", *blocked)
    assert (refused.out, refused.code) == ("", 2)
    assert "127.0.0.1 is in a blocked network" in refused.err
    made = await shell.at_store("destinations", "create", *blocked)
    assert made.err.startswith("headgate: note: 127.0.0.1 is in a blocked network")
    public = ("--name", "bi", "--url", "https://example.com/hook", "--ordered", "--ed25519", "--source", "nobody")
    there = await shell.over_the_network("destinations", "create", *public)
    assert (there.code, there.err) == (0, "")
    assert re.fullmatch(r"whsec_\S+\n", made.out)
    assert re.fullmatch(r"whpk_\S+\n", there.out)
    await shell.both("destinations", "create", *public, code=2, said="bi")

    async def failed() -> str:
        return (await shell.at_store("destinations", "failures", "crm")).out

    async def caught_up() -> bool:
        return "  cursor 2  0 behind  " in (await shell.at_store("destinations", "list")).out.splitlines()[0]

    assert re.match(r"1  retrying  1 attempts  next \S+Z  no answer  .*blocked network", await until(failed))
    retried = await shell.over_the_network("destinations", "failures", "crm", "--retry", "1")
    assert retried.out.startswith("1  retrying  "), retried
    skipped = await shell.over_the_network("destinations", "failures", "crm", "--skip", "1")
    assert skipped.out.startswith("1  skipped  "), skipped
    # It is not tried again, so what is shown does not change any more.
    assert (await shell.both("destinations", "failures", "crm")) == skipped.out
    await until(caught_up)
    crm, bi = (await shell.both("destinations", "list")).splitlines()
    assert crm.split("  ")[1:8] == [*("crm", "active", "parallel", "cursor 2", "0 behind", "0 set aside"), blocked[3]]
    assert re.fullmatch(r"last error: 127\.0\.0\.1 is in a blocked network.*", crm.split("  ")[8])
    assert re.fullmatch(r"dst_\w+  bi  active  ordered  cursor 2  0 behind  0 set aside  https://example\.com/hook", bi)
    # An error is shown only while it lasts.
    assert "last error" not in await shell.both("destinations", "resume", "crm")
    for command, arguments, state in (("pause", (), "paused"), ("replay", ("--after", "1"), "paused"),
                                      ("replay", ("--from", "2024-01-15T10:30:00Z"), "paused"),
                                      ("replay", ("--set-aside",), "paused"), ("resume", (), "active")):  # fmt: skip
        for name in ("bi", bi.split("  ")[0]):
            assert f"  bi  {state}  " in await shell.both("destinations", command, name, *arguments)
    assert (await shell.over_the_network("destinations", "delete", "bi")).code == 0
    assert (await shell.at_store("destinations", "delete", "crm")).code == 0
    assert await shell.both("destinations", "list") == ""


async def test_a_secret_that_cannot_be_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could verify with it, so the destination is removed again."""

    def full(*_: str) -> None:
        raise SetupError("cannot write to standard output: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("headgate_server.cli.destinations.show", full)
        create = ("destinations", "create", "--name", "a", "--url", "https://x.example")
        await shell.both(*create, code=2, said="No space left")
    assert await shell.both("destinations", "list") == ""


async def test_all_pages_of_destinations(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate_server.cli.destinations._PAGE", 2)
    for name in ("a", "b", "c"):
        made = await shell.at_store("destinations", "create", "--name", name, "--stream", name, "--subject-prefix", "p")
        assert (made.out, made.code) == ("", 0), "a stream has no secret"
    listed = (await shell.both("destinations", "list")).splitlines()
    assert [line.split("  ")[1:4] for line in listed] == [[name, "active", "ordered"] for name in ("a", "b", "c")]
    assert listed[0].endswith("  a p.>")
    assert "  c  paused  " in await shell.both("destinations", "pause", "c")
    stream = ("--name", "d", "--stream", "d", "--subject-prefix", "p")
    refused = await shell.over_the_network("destinations", "create", *stream)
    assert (refused.out, refused.code) == ("", 2)
    assert "has no NATS server" in refused.err


async def test_rejections(shell: Shell, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate_server.cli.rejections._PAGE", 1)
    await desk.caller.json(BATCH)
    missing, moment = await desk.seen(2)
    listed = (await shell.both("rejections", "list")).splitlines()
    assert [line.split("  ")[0] for line in listed] == [moment.id, missing.id]
    assert await shell.both("rejections", "list", "--limit", "1") == listed[0] + "\n"
    received_at = listed[1].split("  ")[1]
    filters = ("--reason", "MISSING_FIELD", "--receiver", "native", "--key-id", missing.key_id, "--from", received_at)
    assert await shell.both("rejections", "list", *filters) == listed[1] + "\n"
    assert NUMBER in json.loads(await shell.both("rejections", "show", missing.id))["event"]

    edited = tmp_path / "edited.json"
    edited.write_text(
        '{"type": "c", "occurred_at": "2024-01-15T10:30:00.1234567Z", "data": {"amount": '
        + NUMBER
        + '}, "source": "shop", "subject": "s", "idempotency_key": "k"}\n'
    )
    mended = ("rejections", "replay", missing.id, "--event", str(edited))
    dry = json.loads(await shell.both(*mended, "--validate-only"))["result"]
    assert (dry["index"], dry["status"], len(dry["warnings"])) == (0, "accepted", 1)
    first = json.loads((await shell.over_the_network(*mended)).out)
    assert first["result"]["status"] == "accepted"
    again = json.loads(await shell.both(*mended))
    assert again == {"rejection_id": missing.id, "result": first["result"] | {"status": "duplicate"}}
    stored = (await desk.caller.all_events())[-1]
    assert (stored.type, stored.source, stored.subject, stored.idempotency_key) == ("c", "shop", "s", "k")
    assert stored.occurred_at.ToJsonString() == "2024-01-15T10:30:00.123456Z"
    assert stored.data_json.decode() == '{"amount":' + NUMBER[:-1] + "}"

    for bad in ("null", "[]", '{"type": 1}'):
        edited.write_text(bad)
        refused = json.loads(await shell.both(*mended, code=1))
        assert (refused["rejection_id"], refused["result"]["status"]) == (missing.id, "rejected")
    await shell.both("rejections", "replay", "0" * 32, "--event", str(edited), code=2, said="There is no rejection")

    await desk.caller.json(b'{"events": [{"source": "x"}]}')
    await desk.seen(3)
    for size, only in ((1, ("--validate-only",)), (2, ())):
        monkeypatch.setattr("headgate_server.cli.rejections._PAGE", size)
        lines = (await shell.both("rejections", "replay", "--all", *only, code=1)).splitlines()
        results = [json.loads(line)["result"] for line in lines]
        assert [(each["index"], each["error"]["reason"]) for each in results] == [
            (0, "INVALID_TIMESTAMP"),
            (0, "MISSING_FIELD"),
        ]


async def test_a_rejection_that_was_cut(shell: Shell, desk: Desk) -> None:
    await desk.caller.json(b'{"events": [{"source": "x", "data": {"text": "' + b"x" * 70_000 + b'"}}]}')
    (cut,) = await desk.seen(1)
    line = json.loads(await shell.both("rejections", "replay", cut.id, code=1))
    assert (line["rejection_id"], line["result"]["status"]) == (cut.id, "rejected")
    assert line["result"]["error"]["reason"] == "NOT_REPLAYABLE"
    assert json.loads(await shell.both("rejections", "replay", "--all", code=1)) == line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(b"", "The file", id="empty"),
        pytest.param(b"{", "The file", id="no JSON"),
        pytest.param(b'{"type": "\xff"}', "The file", id="not UTF-8"),
        pytest.param(b'{"type": "t"}, "validate_only": false', "The file", id="more than a value"),
        pytest.param(b" " * (8 << 20) + b"{}", "more than 8388608 bytes", id="too large"),
    ],
)
async def test_files_that_are_no_event(shell: Shell, desk: Desk, tmp_path: Path, text: bytes, said: str) -> None:
    await desk.caller.json(BATCH)
    missing, _ = await desk.seen(2)
    file = tmp_path / "event.json"
    file.write_bytes(text)
    await shell.both("rejections", "replay", missing.id, "--event", str(file), code=2, said=said)
    assert await desk.caller.stored() == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("destinations", "pause", "nobody"), "There is no destination 'nobody' in this workspace."),
        (("destinations", "pause", "dst_0"), "dst_0"),
        (("destinations", "failures", "dst_0", "--retry", str(2**63)), "--retry"),
        (("destinations", "create", "--name", "a", "--url", "https://x.example", "--start", "x"), "start:"),
        (("destinations", "create", "--name", "\udcff", "--url", "https://x.example"), "name"),
        (("rejections", "list", "--reason", "NO"), "'NO'"),
        (("rejections", "list", "--key-id", "a\0"), "key_id"),
        (("rejections", "show", "x"), "'x' is not a UUID."),
        (("rejections", "replay", "0" * 32), "There is no rejection"),
    ],
)
async def test_what_is_refused_in_both_ways(shell: Shell, command: tuple[str, ...], said: str) -> None:
    await shell.both(*command, code=2, said=said)


async def test_who_may_do_what(service: Service, shell: Shell, desk: Desk) -> None:
    await desk.caller.json(BATCH)
    missing, moment = await desk.seen(2)
    stranger = Shell(service, await service.key(workspace="other"))
    assert (await stranger.over_the_network("rejections", "list")).out == ""
    assert "There is no rejection" in (await stranger.over_the_network("rejections", "show", missing.id)).err
    named = await stranger.over_the_network("rejections", "list", "--workspace", "acme")
    assert named.out == ""
    assert named.err.startswith("headgate: The API key is of the workspace 'other', not 'acme'.")
    reader, writer = [Shell(service, await service.key(scope)) for scope in (Scope.EVENTS_READ, Scope.EVENTS_WRITE)]
    assert (await reader.over_the_network("rejections", "list")).code == 0
    for weak, command in (
        (reader, ("rejections", "replay", missing.id)),
        (writer, ("rejections", "list")),
        (reader, ("destinations", "list")),
    ):
        done = await weak.over_the_network(*command)
        assert (done.out, done.code) == ("", 2)
        assert "scope" in done.err
    assert (await writer.over_the_network("rejections", "replay", moment.id)).code == 1, "replayed, and refused again"
    unknown = await Shell(service, "hg_" + "x" * 43).over_the_network("destinations", "list")
    assert (unknown.out, unknown.code) == ("", 2)


async def test_an_operators_key_works_in_each_workspace(service: Service, desk: Desk) -> None:
    await desk.caller.json(BATCH)
    await desk.seen(2)
    shell = Shell(service, await service.key(workspace=RESERVED))
    acme = ("--workspace", "acme")
    made = ("create", "--name", "bi", "--stream", "b", "--subject-prefix", "p")
    assert (await shell.at_store("destinations", *made)).code == 0
    for group, command in (
        ("destinations", "list"),
        ("event-types", "list"),
        ("rejections", "list"),
        ("events", "list"),
    ):
        here = await shell.at_store(group, command)
        assert here == await shell.over_the_network(group, command, *acme)
        assert here.code == 0
        assert bool(here.out) == (group != "event-types")
    for name, said in (("nobody", "there is no workspace 'nobody'"), ("größe", "there is no workspace 'größe'")):
        missing = await shell.over_the_network("rejections", "list", "--workspace", name)
        assert (missing.out, missing.code, missing.err) == ("", 2, f"headgate: {said}\n")
    assert (await shell.over_the_network("destinations", "list")).out == "", "without a name it is that of the key"


_CREATE = ("destinations", "create", "--data-dir", ".", "--workspace", "a", "--name", "a")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("destinations", "list", "--service", "h:1", "--store", "x"), "give --service or --store, not both"),
        (("destinations", "list", "--data-dir", ".", "--plaintext"), "--plaintext needs --service"),
        (("destinations", "list", "--data-dir", "."), "Missing option '--workspace'"),
        (("destinations", "list", "--url", "h:1"), "No such option"),
        (("rejections", "list", "--url", "h:1", "--store", "x"), "give --url or --store, not both"),
        (("rejections", "list", "--data-dir", ".", "--key", "hg_x"), "--key needs --url"),
        (("rejections", "list", "--url", "h:1"), "there is no API key: give --key, or set HEADGATE_KEY"),
        (
            ("events", "tail", "--url", "h:1", "--key", "k", "--ca", __file__, "--client-key", __file__),
            "given together",
        ),
        ((*_CREATE, "--stream", "s", "--ed25519"), "--ed25519 needs --url"),
        ((*_CREATE, "--stream", "s", "--max-events", "1"), "--max-events needs --url"),
        ((*_CREATE, "--stream", "s", "--format", "cloudevents"), "--format needs --url"),
        ((*_CREATE, "--url", "https://x.example", "--subject-prefix", "s"), "--subject-prefix needs --stream"),
    ],
)
def test_options_that_exclude_each_other(command: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(headgate, command)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_the_address_may_be_a_variable(sqlite_url: str) -> None:
    """A variable counts less than an option, and the URL of a webhook is no address of a service."""
    environment = {"HEADGATE_URL": "127.0.0.1:1", "HEADGATE_STORE": sqlite_url}
    create = ("destinations", "create", "--name", "a", "--url", "https://x.example", "--workspace", "a")
    done = CliRunner().invoke(headgate, create, env=environment)
    assert "HEADGATE_URL and HEADGATE_STORE are both set: give --service or --store" in done.stderr
    done = CliRunner().invoke(headgate, [*create, "--store", sqlite_url], env=environment)
    assert done.stderr == "headgate: there is no workspace 'a'\n"
    done = CliRunner().invoke(headgate, [*create[:-2]], env={"HEADGATE_URL": "127.0.0.1:1", "HEADGATE_KEY": "hg_x"})
    assert "the service at 127.0.0.1:1 gives no answer" in done.stderr


async def test_the_end_of_a_server_writes_the_last_use_of_a_key(sqlite_url: str) -> None:
    """While it runs, it writes once a minute. SIGTERM does not lose the minute that has begun."""
    key = await make_key(sqlite_url)

    async def used() -> int | None:
        async with admin.opened(sqlite_url) as store:
            found = await store.directory.find_key(digest_of(key))
        assert found is not None
        return found.last_used_at

    async with ServerProcess(sqlite_url) as server:
        async with Client(server.port, key) as client:
            assert await client.all_events() == []
        assert await used() is None
        assert await server.end(signal.SIGTERM) == 0
    assert await used() is not None
