"""`headgate doctor`: looks at everything that a service needs."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from headgate_server.access.doctor import Finding, Plan, State, examine
from headgate_server.cli.options import options
from headgate_server.cli.running import check_output, run, show
from headgate_server.cli.workers import useful
from headgate_server.config import AUTO, Settings
from headgate_server.process.ports import HIGHEST_PORT
from headgate_server.process.setting import build

_PORT = click.IntRange(0, HIGHEST_PORT)
_FILE = click.Path(path_type=Path)


@click.command()
@options(Settings, only=("store", "data-dir", "workers", "grpc-host", "grpc-port", "metrics-host", "metrics-port"))
@click.option("--http-host", default="127.0.0.1", show_default=True, envvar="HEADGATE_HTTP_HOST", show_envvar=True)
@click.option("--http-port", type=_PORT, default=8080, show_default=True, envvar="HEADGATE_HTTP_PORT", show_envvar=True)
@click.option("--tls-cert", type=_FILE, envvar="HEADGATE_TLS_CERT", show_envvar=True, help="Its dates are read.")
@click.option("--tls-key", type=_FILE, envvar="HEADGATE_TLS_KEY", show_envvar=True, help="Is it the certificate's?")
@click.option("--tls-client-ca", type=_FILE, envvar="HEADGATE_TLS_CLIENT_CA", show_envvar=True, help="Likewise.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(as_json: bool, **values: Any) -> None:
    """Look at everything that a service needs, and print one line each: ok, warn or FAIL, and what to do.

    Give it the options that the service is started with. Exits with 0 if nothing failed, and otherwise with 1. Nothing
    is changed, except that a probe commits one row, as a running service does every few seconds.
    """
    check_output()
    findings = run(examine(_plan(values)))
    sound = all(finding.state is not State.FAIL for finding in findings)
    if as_json:
        show(json.dumps({"ok": sound, "checks": [finding._asdict() for finding in findings]}, indent=2))
    else:
        show(*map(_line, findings))
    if not sound:
        sys.exit(1)


def _plan(values: dict[str, Any]) -> Plan:
    settings = build(Settings, values)
    ports = [("REST", values["http_host"], values["http_port"])]
    workers = useful(settings) if settings.workers == AUTO else settings.workers
    # Of `auto`, a later worker gets another port if its own is taken.
    asked = 1 if settings.workers == AUTO else workers
    ports += [("gRPC", settings.server.host, settings.server.port + index) for index in range(asked)]
    if settings.metrics_port is not None:
        ports.append(("metrics", settings.metrics_host, settings.metrics_port))
    named = (("certificate", values["tls_cert"]), ("client CA", values["tls_client_ca"]))
    return Plan(
        location=settings.store.location,
        workers=workers,
        # 0 is any free port.
        ports=[port for port in ports if port[2]],
        tls=[(purpose, path) for purpose, path in named if path is not None],
        tls_key=values["tls_key"],
    )


def _line(finding: Finding) -> str:
    state = "FAIL" if finding.state is State.FAIL else finding.state
    line = f"{state:<5} {finding.check:<12} {finding.found}"
    return f"{line}. Do: {finding.do}" if finding.do else line
