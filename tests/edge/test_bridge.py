"""The bridge's Envoy on a machine in trouble: a late answer, a full disk, a name that is not known any more."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from headgate_bridge import BridgeConfig, BridgeError, Envoy, admin, secrets
from headgate_server.process.tls import TlsMaterial
from headgate_server.rpc.pipeline.trust import PUBLIC
from tests.support.inprocess import Service, serving


def _config(port: int, **settings: Any) -> BridgeConfig:
    upstreams = (("127.0.0.1", port),)
    return BridgeConfig(http_port=0, upstreams=upstreams, body_limit=1 << 20, marker=PUBLIC, concurrency=1, **settings)


@pytest.fixture
async def service(sqlite_url: str) -> AsyncIterator[Service]:
    async with serving(sqlite_url) as running:
        yield running


async def test_an_envoy_that_answers_late_is_drained_all_the_same(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine may keep it from answering for seconds. A request in progress is still answered."""
    late = asyncio.Event()
    ask = admin.Admin._ask

    async def asked(self: admin.Admin, method: str, path: str) -> str:
        try:
            return await ask(self, method, path)
        except TimeoutError:
            late.set()
            raise

    body = b'{"type": "t"}'
    key = (await service.key()).encode()
    async with Envoy(_config(service.port)) as envoy:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{envoy.port}") as http:
            # Envoy asks the server about the key here, and not in the middle of the drain.
            assert (await http.get("/v1/events", headers={"x-api-key": key.decode()})).status_code == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", envoy.port)
        head = b"POST /v1/events HTTP/1.1\r\nhost: h\r\nx-api-key: %s\r\nexpect: 100-continue\r\n" % key
        writer.write(head + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        with monkeypatch.context() as patch:
            patch.setattr(admin, "TIMEOUT_SECONDS", 0.2)
            patch.setattr(admin.Admin, "_ask", asked)
            os.kill(envoy.pid, signal.SIGSTOP)
            try:
                drain = asyncio.create_task(envoy.drain(60))
                await late.wait()
            finally:
                os.kill(envoy.pid, signal.SIGCONT)
        # The turn of the event loop in which a drain that has given up would end.
        assert not (await asyncio.wait((drain,), timeout=0.5))[0]
        writer.write(body)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await drain


async def test_a_name_is_looked_up_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Envoy that died is replaced at the same address, also if the name cannot be looked up any more."""

    look_up = socket.getaddrinfo

    def unknown(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "localhost":
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return look_up(host, *arguments, **options)

    async with Envoy(_config(service.port, http_host="localhost")) as envoy:
        os.kill(envoy.pid, signal.SIGKILL)
        await envoy.wait()
        with monkeypatch.context() as patch:
            patch.setattr("headgate_bridge.config.socket.getaddrinfo", unknown)
            await envoy.start()
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://127.0.0.1:{envoy.port}/readyz")).status_code == 200


@pytest.mark.parametrize("written", ["envoy.json", "downstream-shown.new"])
async def test_a_full_disk_is_a_failed_start(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one line that says why, and can be tried again, which is what keeps Envoy running."""

    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    tls = TlsMaterial(chain=b"c", key=b"k", trusted=b"", expires=None) if written != "envoy.json" else None
    envoy = Envoy(_config(1, tls=tls))
    with monkeypatch.context() as patch:
        if tls is None:
            patch.setattr(Path, "write_text", full)
        else:
            patch.setattr(secrets, "_replace", full)
        with pytest.raises(BridgeError, match="No space left on device") as refused:
            await envoy.start()
    assert "\n" not in str(refused.value)
    assert not envoy.port


async def test_the_last_line_of_the_log_needs_no_end() -> None:
    """A process that dies may print no newline after its reason."""
    dying = await asyncio.create_subprocess_exec("sh", "-c", "printf 'one\ntwo' >&2", stderr=asyncio.subprocess.PIPE)
    envoy = Envoy(_config(1))
    await envoy._read_log(dying)
    assert await dying.wait() == 0
    assert list(envoy._log) == ["one", "two"]
