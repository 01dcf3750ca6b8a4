"""The console script `headgate`; also `python -m headgate_server`."""

import os
import sys

from headgate_server.process.outlet import restore_streams


def main() -> None:
    """Run the command line, or name the missing package."""
    restore_streams()
    # gRPC's C core has its own unstructured log: for a port in use it prints two hundred characters before the server's
    # own message. The variable is read when grpc is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from headgate_server.cli.commands import headgate
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("headgate: click is not installed; the service needs: pip install 'headgate[server,bridge]'")
    headgate(prog_name="headgate")


if __name__ == "__main__":
    main()
