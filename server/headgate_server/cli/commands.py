"""The command line: the commands, each in a module that is loaded when it is called for."""

from collections.abc import Sequence
from importlib import import_module

import click

_COMMANDS = {
    # Name, and the module of `headgate_server.cli` that has it under that name.
    "bridge": "up",
    "keys": "keys",
    "ledger": "ledger",
    "serve": "serve",
    "up": "up",
    "workspaces": "workspaces",
}


class _Commands(click.Group):
    """Loads a command's module, and with it what the command needs, when it is called for.

    So `headgate serve` runs where Envoy is not installed, and `headgate keys` does not wait for the server's imports.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; where something that it needs is not installed, one that says so."""
        if cmd_name not in _COMMANDS:
            return None
        try:
            module = import_module(f"headgate_server.cli.{_COMMANDS[cmd_name]}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in ("headgate_server", "headgate"):
                raise
            return _Missing(cmd_name, error.name)
        command: click.Command = getattr(module, cmd_name)
        return command


class _Missing(click.Command):
    """Stands for a command that lacks a library."""

    def __init__(self, name: str, library: str):
        super().__init__(name, help=f"Not installed: {library}.", add_help_option=False)
        self.library = library

    def parse_args(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        """Say what to install, whatever the arguments are."""
        needs = "server,bridge" if _COMMANDS[str(self.name)] == "up" else "server"
        click.echo(
            f"headgate: {self.library} is not installed; this command needs: pip install 'headgate[{needs}]'", err=True
        )
        ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="headgate", prog_name="headgate")
def headgate() -> None:
    """Headgate takes events in, over gRPC and REST: each is durable, deduplicated for ever, and sealed into a
    ledger.

    \b
    headgate up              run the service, here and now
    headgate keys create     make an API key
    headgate ledger verify   check that no stored event was changed

    The service's settings can come from environment variables; `headgate COMMAND --help` names them.
    """
