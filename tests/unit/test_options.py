"""The option table: every option comes from a field of a config, and reaches the workers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from headgate_bridge import BridgeConfig
from headgate_server.cli.commands import headgate
from headgate_server.cli.options import options
from headgate_server.cli.serve import serve
from headgate_server.cli.workers import arguments, environment
from headgate_server.config import Settings, StoreConfig
from headgate_server.process.setting import Row, build, handed_over, rows, setting
from headgate_server.rpc.server import ServerConfig

OPTIONS = {
    "store": None,
    "data-dir": Path("data"),
    "grpc-host": "127.0.0.1",
    "grpc-port": 50051,
    "workers": "auto",
    "body-limit": 8388608,
    "batch-limit": 1000,
    "concurrent-calls": 2000,
    "concurrent-streams": 1000,
    "ingest-streams": 16,
    "stream-heartbeat": 10.0,
    "waiting-events": 40000,
    "waiting-bytes": 67108864,
    "rejections": 10000,
    "rejection-days": 7,
    "metrics-port": None,
    "metrics-host": "127.0.0.1",
    "metrics-workspaces": 0,
    "shutdown-grace": 20.0,
    "log-level": "info",
    "deliver": "on",
    "webhook-allow": (),
    "nats-url": None,
    "http-host": "127.0.0.1",
    "http-port": 8080,
    "envoy-config": None,
    "tls-cert": None,
    "tls-key": None,
    "tls-client-ca": None,
    "plaintext": False,
    "hsts": 0,
}
"""Operators' scripts rely on these flags and defaults. An option may be added; none of these may change."""

PER_WORKER = {"grpc_port", "health_port", "workers", "shutdown_grace"}
OF_THE_PARENT = {"metrics_port", "metrics_host"}


def _another(row: Row) -> Any:
    """Return a value of an option that is not its default."""
    if row.setting.multiple:
        return tuple(row.setting.read(text) for text in ("127.0.0.2", "10.0.0.0/8"))
    if row.setting.choices:
        return next(one for one in row.setting.choices if one != row.default)
    if row.setting.is_flag:
        return True
    if row.setting.flag == "nats-url":
        return "nats://127.0.0.2:4222"
    if row.setting.flag == "workers":
        return 2
    if row.kind is int:
        return (row.default or row.setting.least) + 1
    if row.kind is float:
        return row.default + 0.5
    return Path("/x y/?#%20ü") if row.kind is Path else "127.0.0.2"


def _parsed(argv: Sequence[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings that `headgate serve` reads from a command line."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return build(Settings, serve.make_context("serve", list(argv)).params)


def test_no_option_and_no_default_goes() -> None:
    table = {row.setting.flag: row.default for config in (Settings, BridgeConfig) for row in rows(config)}
    assert OPTIONS.items() <= table.items()
    help_text = CliRunner().invoke(headgate, ["up", "--help"]).stdout
    for row in (*rows(Settings), *rows(BridgeConfig)):
        assert f"--{row.setting.flag}" in help_text
        assert row.setting.variable in " ".join(help_text.split())


def test_every_option_reaches_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values are not the defaults: a worker that does not get an option would silently run with its default."""
    given = build(Settings, {row.setting.name: _another(row) for row in rows(Settings)})
    for number, argv in enumerate(arguments(given, [7000, 7001], 3.5, None, [7100, 7101])):
        parsed = _parsed(argv, dict(environment(given)), monkeypatch)
        wanted, got = (
            [(one.name, text) for one, text in handed_over(each) if one.name not in PER_WORKER | OF_THE_PARENT]
            for each in (given, parsed)
        )
        assert got == wanted
        assert (parsed.server.port, parsed.workers, parsed.shutdown_grace) == (7000 + number, 1, 3.5)
        assert parsed.server.health_port == 7100 + number
        # The parent reads the workers' metrics itself.
        assert (parsed.metrics_port, parsed.metrics_host) == (None, "127.0.0.1")


def test_what_is_secret_is_no_argument() -> None:
    given = Settings(
        store=StoreConfig(url="postgresql://user:hunter2@host/x"), server=ServerConfig(bridge_token="hunter2")
    )
    (argv,) = arguments(given, [7000], 1)
    assert not [part for part in argv if "hunter2" in part]
    assert environment(given) == {
        "HEADGATE_STORE": "postgresql://user:hunter2@host/x",
        "HEADGATE_BRIDGE_TOKEN": "hunter2",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """A config within a config."""

    limit: int | None = setting(None, "new-limit", "What is new.", least=1, most=9)
    unset: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """A config with one field of each kind."""

    inner: Inner = field(default_factory=Inner)
    name: str = setting("x", "new-name", "A name.")
    share: float = setting(0.5, "share", "A share.", least=0, most=1)
    bold: bool = setting(False, "bold", "A flag.")


def test_a_new_option_is_one_field(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Outer] = []

    @click.command()
    @options(Outer)
    def command(**values: Any) -> None:
        read.append(build(Outer, values))

    run = CliRunner().invoke
    assert run(command, ["--new-limit", "3", "--new-name", "y"], env={"HEADGATE_SHARE": "0.25"}).exit_code == 0
    assert read == [Outer(inner=Inner(limit=3), name="y", share=0.25)]
    assert run(command, ["--bold"]).exit_code == 0
    assert run(command, [], env={"HEADGATE_BOLD": "1"}).exit_code == 0
    assert [each.bold for each in read] == [False, True, True]
    assert [(one.flag, text) for one, text in handed_over(read[0])] == [
        ("new-limit", "3"),
        ("new-name", "y"),
        ("share", "0.25"),
    ]
    refused = {"--new-limit=10": "1<=x<=9", "--share=2": "0<=x<=1", "--unset=1": "--unset"}
    for argument, word in refused.items():
        done = run(command, [argument])
        assert done.exit_code == 2
        assert word in done.stderr
    help_text = " ".join(run(command, ["--help"]).stdout.split())
    assert "What is new. [env var: HEADGATE_NEW_LIMIT; 1<=x<=9]" in help_text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        pytest.param(["--data-dir", ""], "the path is empty", id="no folder"),
        pytest.param(["--data-dir", "~nobody-of-this-name/x"], "home folder that is not known", id="no such home"),
        pytest.param(["--grpc-host", ""], "is not a host", id="no host"),
        pytest.param(["--grpc-host", "[::1]:50051"], "is not a host", id="host and port"),
        pytest.param(["--grpc-host", "a..b"], "is not a host", id="an empty part"),
        pytest.param(["--grpc-host", "a" * 64], "is not a host", id="a part that is too long"),
    ],
)
def test_what_cannot_be_read(argv: list[str], said: str) -> None:
    done = CliRunner().invoke(headgate, ["serve", *argv])
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_a_home_folder_and_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    parsed = _parsed(["--grpc-host", "[::1]"], {"HEADGATE_DATA_DIR": "~/events"}, monkeypatch)
    assert (parsed.server.host, parsed.store.data_dir) == ("::1", Path("/home/somebody/events"))
