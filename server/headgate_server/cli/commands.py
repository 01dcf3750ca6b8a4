"""The command line. Each command is in a module that is loaded when the command is called."""

from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from headgate_server.core import compiled
from headgate_server.core.errors import SetupError

_COMMANDS = {
    # From a command's name to the module of `headgate_server.cli` that defines it.
    "audit": "audit",
    "backup": "backup",
    "bridge": "up",
    "copy": "copy_store",
    "deliver": "deliver",
    "destinations": "destinations",
    "doctor": "doctor",
    "event-types": "event_types",
    "events": "events",
    "import": "import_events",
    "keys": "keys",
    "ledger": "ledger",
    "migrate": "migrate",
    "rejections": "rejections",
    "restore": "backup",
    "serve": "serve",
    "up": "up",
    "workspaces": "workspaces",
}


class _Commands(click.Group):
    """Loads a command's module, with the libraries that it needs, when the command is called.

    So `headgate serve` runs without Envoy's package, and `headgate keys` does not wait for the server's imports.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command. If a library that it needs is not installed, return one that says so."""
        if cmd_name not in _COMMANDS:
            return None
        try:
            module = import_module(f"headgate_server.cli.{_COMMANDS[cmd_name]}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in ("headgate_server", "headgate"):
                raise
            return _Missing(cmd_name, error.name)
        # A command whose name is no name of Python's, or a word of Python, is named after its module.
        attribute = cmd_name if cmd_name.isidentifier() and not iskeyword(cmd_name) else _COMMANDS[cmd_name]
        command: click.Command = getattr(module, attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. A `SetupError` outside of its `run`, such as a result that cannot be written, is one line."""
        try:
            return super().invoke(ctx)
        except SetupError as error:
            click.echo(f"headgate: {error}", err=True)
            ctx.exit(2)


class _Missing(click.Command):
    """Stands for a command that lacks a library."""

    def __init__(self, name: str, library: str):
        super().__init__(name, help=f"Not installed: {library}.", add_help_option=False)
        self.library = library

    def parse_args(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        """Say what to install, for any arguments."""
        needs = "server,bridge" if _COMMANDS[str(self.name)] == "up" else "server"
        click.echo(
            f"headgate: {self.library} is not installed; this command needs: pip install 'headgate[{needs}]'", err=True
        )
        ctx.exit(1)


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version. Which core is used goes to standard error: scripts read the only line of the output."""
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"headgate, version {compiled.version()}")
    click.echo(f"core: {compiled.found.said}", err=True)
    context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def headgate() -> None:
    """Headgate ingests events over gRPC and REST: each is durable, deduplicated for ever, and sealed into a ledger.

    \b
    headgate up              run the service
    headgate keys create     make an API key
    headgate events tail     print events as they are stored
    headgate import          send the events of a file
    headgate ledger verify   check that no stored event was changed
    headgate backup          copy an SQLite store while it is served
    headgate copy            copy a store into another one, such as from SQLite to PostgreSQL
    headgate doctor          look at everything that the service needs

    The service's settings can come from environment variables; `headgate COMMAND --help` names them.
    """
