"""The command line as a whole: which commands work over the network, and that they have the same options for it."""

from collections.abc import Iterator, Mapping

import click
import pytest

from headgate_server.cli.commands import headgate

AT_THE_STORE: Mapping[str, str] = {
    "backup": "It copies the file of an SQLite store.",
    "restore": "It makes a store; no service may use it yet.",
    "copy": "It reads one store and writes another, and compares all rows.",
    "migrate": "It changes the schema, before a server of the new release starts.",
    "doctor": "It looks at the machine of the service: disk, ports, files. A service answers at /readyz.",
    "ledger heads": "Heads to keep elsewhere come from the database. A service answers at /v1/ledger/head.",
    "ledger verify": "It recomputes hashes from the rows themselves. A service answers at /v1/ledger/verify.",
    "deliver": "It is a process of the service.",
    "serve": "It is a process of the service.",
    "up": "It is the service.",
    "bridge": "It is a process of the service.",
}
"""The commands that do not take the address of a service, and why."""
CONNECTION = {"--ca", "--client-cert", "--client-key", "--plaintext", "--key"}


def _commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(_commands(headgate))


def test_each_command_works_over_the_network_or_has_a_reason() -> None:
    """The operator's laptop has no access to the database."""
    there = {name for name, command in COMMANDS.items() if _address(command)}
    assert there | AT_THE_STORE.keys() == COMMANDS.keys()
    assert not there & AT_THE_STORE.keys()
    assert len(there) > 20
    with_store = {name for name in there if "--store" in _options(COMMANDS[name])}
    assert there - with_store == {"import"}, "a client that needs no store"


@pytest.mark.parametrize("name", sorted(name for name in COMMANDS if name not in AT_THE_STORE))
def test_each_has_the_same_options_for_the_connection(name: str) -> None:
    options = _options(COMMANDS[name])
    assert options >= CONNECTION
    assert _address(COMMANDS[name]) == ("--service" if name.startswith("destinations ") else "--url")


def _options(command: click.Command) -> set[str]:
    return {flag for one in command.params for flag in one.opts}


def _address(command: click.Command) -> str:
    """Return the option that names a service; empty if there is none."""
    found = [one for one in command.params if one.envvar == "HEADGATE_URL"]
    return found[0].opts[0] if found else ""
