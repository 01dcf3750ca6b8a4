"""An operator, an account and users of NATS, like those of `nsc`: signed tokens, each issued by the one above."""

import json
import os
import time
from base64 import urlsafe_b64encode
from typing import Any

import nkeys


class Identities:
    """An operator with one account, which may use JetStream, and the server's own account."""

    def __init__(self) -> None:
        self._operator, _ = _pair(nkeys.PREFIX_BYTE_OPERATOR)
        self._account, _ = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system, _ = _pair(nkeys.PREFIX_BYTE_ACCOUNT)

    @property
    def settings(self) -> str:
        """The part of a server's configuration that describes them."""
        limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1}
        stores = {"wildcards": True, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
        operator = _token(self._operator, self._operator, "operator", {})
        account = _token(self._operator, self._account, "account", {"limits": {**limits, **stores}})
        system = _token(self._operator, self._system, "account", {"limits": limits})
        name, system_name = self._account.public_key.decode(), self._system.public_key.decode()
        return (
            f"operator: {operator}\nsystem_account: {system_name}\nresolver: MEMORY\n"
            f"resolver_preload: {{ {name}: {account}, {system_name}: {system} }}"
        )

    def credentials(self, name: str) -> str:
        """Return a new user's credentials file."""
        user, seed = _pair(nkeys.PREFIX_BYTE_USER)
        token = _token(self._account, user, "user", {"subs": -1, "data": -1, "payload": -1}, name)
        return (
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
        )


def _pair(prefix: int) -> tuple[nkeys.KeyPair, bytes]:
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return nkeys.from_seed(bytearray(seed)), seed


def _token(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, kind: str, claims: dict[str, Any], name: str = "test") -> str:
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    body = {
        "jti": os.urandom(16).hex(),
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": name,
        "nats": {**claims, "type": kind, "version": 2},
    }
    signed = f"{_part(json.dumps(head).encode())}.{_part(json.dumps(body).encode())}"
    return f"{signed}.{_part(issuer.sign(signed.encode()))}"


def _part(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")
