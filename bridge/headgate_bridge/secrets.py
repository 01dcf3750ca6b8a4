"""Certificates for Envoy: files in its private folder, from which it reads them again when they are replaced (SDS).

Envoy follows the operator's own files only when they are moved, and reads certificate and key one after the other. So
it gets checked content, and a certificate with its key in one file.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from headgate_server.process.tls import TlsMaterial

TYPES = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."

# The port's own certificate, and the one that is shown to the servers; and whom each trusts.
DOWNSTREAM = "downstream"
UPSTREAM = "upstream"

_SHOWN = "shown"
_TRUSTED = "trusted"

# Seconds in which a client must end its handshake. The gRPC port has the same bound.
HANDSHAKE_TIMEOUT = "15s"


def write(folder: Path, side: str, material: TlsMaterial) -> None:
    """Write the secrets of one side, or replace them: Envoy reads the new ones for its next connections.

    Raises `OSError` if that is not possible.
    """
    if material.chain:
        pair = {"certificate_chain": _inline(material.chain), "private_key": _inline(material.key)}
        _replace(folder, f"{side}-{_SHOWN}", {"tls_certificate": pair})
    if material.trusted:
        _replace(folder, f"{side}-{_TRUSTED}", {"validation_context": {"trusted_ca": _inline(material.trusted)}})


def downstream(folder: Path, material: TlsMaterial) -> dict[str, Any]:
    """Return the transport socket of a listener whose secrets are in a folder."""
    common = _common(folder, DOWNSTREAM, material)
    common["alpn_protocols"] = ["h2", "http/1.1"]
    context: dict[str, Any] = {"@type": f"{TYPES}DownstreamTlsContext", "common_tls_context": common}
    if material.trusted:
        context["require_client_certificate"] = True
        # A client that resumes a session shows no certificate: it could go on after its own has expired.
        context["disable_stateless_session_resumption"] = True
        context["disable_stateful_session_resumption"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def upstream(folder: Path, material: TlsMaterial, names: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the transport socket to servers that have one of these names in their certificate."""
    common = _common(folder, UPSTREAM, material)
    common["alpn_protocols"] = ["h2"]
    trusted = common.pop("validation_context_sds_secret_config")
    common["combined_validation_context"] = {
        "default_validation_context": {"match_typed_subject_alt_names": names},
        "validation_context_sds_secret_config": trusted,
    }
    context = {"@type": f"{TYPES}UpstreamTlsContext", "common_tls_context": common, "auto_host_sni": True}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _common(folder: Path, side: str, material: TlsMaterial) -> dict[str, Any]:
    common: dict[str, Any] = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_2"}}
    if material.chain:
        common["tls_certificate_sds_secret_configs"] = [_reference(folder, f"{side}-{_SHOWN}")]
    if material.trusted:
        common["validation_context_sds_secret_config"] = _reference(folder, f"{side}-{_TRUSTED}")
    return common


def _reference(folder: Path, name: str) -> dict[str, Any]:
    source = {"path": str(_file(folder, name)), "watched_directory": {"path": str(folder)}}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": source}}


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _inline(pem: bytes) -> dict[str, str]:
    return {"inline_bytes": base64.b64encode(pem).decode()}


def _replace(folder: Path, name: str, secret: dict[str, Any]) -> None:
    """Write a file, and move it to its name, which Envoy watches."""
    new = folder / f"{name}.new"
    text = json.dumps({"resources": [{"@type": f"{TYPES}Secret", "name": name, **secret}]})
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(new, _file(folder, name))
