"""No connection is made to a blocked network. Every test records the addresses to which the process connects."""

import asyncio
import os
import subprocess
import sys
import threading
from ipaddress import ip_address

import pytest

from headgate_server.delivery.attempt import Verdict
from headgate_server.delivery.resolver import SystemResolver
from tests.delivery.conftest import Make, Names
from tests.support.connections import watched
from tests.support.delivering import stored
from tests.support.receivers import answers, receiver
from tests.support.waiting import until

EVENT = stored()
OK = answers(200)

ADDRESSES = [
    "127.0.0.2",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "172.16.0.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::a9fe:a9fe",
    "2001:0:808:808::80ff:fffe",
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_blocked_address_is_not_connected_to(webhook: Make, address: str) -> None:
    with watched() as connections:
        attempt = await webhook(80, host=address).send([EVENT], 1)
    assert connections.made == []
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
    assert attempt.detail.startswith(f"{address} is in a blocked network (")


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_name_with_a_blocked_address_is_not_connected_to(webhook: Make, address: str) -> None:
    with watched() as connections:
        attempt = await webhook(80, host="crm.example", names=Names({"crm.example": [address]})).send([EVENT], 1)
    assert connections.made == []
    assert attempt.detail.startswith("crm.example is in a blocked network (")


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f.0x1", "2130706433", "017700000001", "0", "0x0"])
async def test_a_form_that_the_check_of_the_url_would_miss_is_refused(webhook: Make, host: str) -> None:
    """The system's resolver accepts all of them. The address that it returns is checked."""
    with watched() as connections:
        attempt = await webhook(80, host=host, allow=[]).send([EVENT], 1)
    assert connections.looked_up == [host]
    assert connections.made == []
    assert attempt.detail.startswith(f"{host} is in a blocked network (this machine)")


async def test_of_several_addresses_only_allowed_ones_are_connected_to(webhook: Make) -> None:
    names = Names({"crm.example": ["10.0.0.1 ::1 127.0.0.1 169.254.169.254"]})
    async with receiver(OK) as there:
        with watched() as connections:
            attempt = await webhook(there.port, host="crm.example", names=names).send([EVENT], 1)
    assert attempt.verdict is Verdict.DELIVERED
    assert connections.made == [("127.0.0.1", there.port)]


async def test_a_name_is_looked_up_once_for_each_connection_and_not_after_the_check(webhook: Make) -> None:
    """DNS rebinding: the name has an allowed address at the check, and another one at every later look-up."""
    names = Names({"crm.example": ["127.0.0.1", "127.0.0.2"]})
    async with receiver(OK) as there, receiver(OK, host="127.0.0.2") as victim:
        sender = webhook(there.port, host="crm.example", names=names)
        with watched() as connections:
            assert (await sender.send([EVENT], 1)).verdict is Verdict.DELIVERED
            # The connection is kept, so there is no second look-up.
            assert (await sender.send([EVENT], 2)).verdict is Verdict.DELIVERED
            # A new connection looks the name up and checks it again.
            rebound = await webhook(victim.port, host="crm.example", names=names).send([EVENT], 1)
    assert connections.made == [("127.0.0.1", there.port)]
    # A connection to an address asks the system's resolver only for that address.
    assert "crm.example" not in connections.looked_up
    assert names.asked == ["crm.example", "crm.example"]
    assert rebound.detail.startswith("crm.example is in a blocked network (this machine)")
    assert victim.connections == 0


async def test_a_redirect_into_a_blocked_network_connects_to_nothing(webhook: Make) -> None:
    async with receiver(OK, host="127.0.0.2") as victim:
        async with receiver(answers(307, location=f"http://127.0.0.2:{victim.port}/")) as there:
            with watched() as connections:
                assert (await webhook(there.port).send([EVENT], 1)).status == 307
        assert connections.made == [("127.0.0.1", there.port)]
    assert victim.connections == 0


async def test_the_allow_list_allows(webhook: Make) -> None:
    async with receiver(OK, host="127.0.0.2") as there:
        refused = await webhook(there.port, host="127.0.0.2").send([EVENT], 1)
        allowed = await webhook(there.port, host="127.0.0.2", allow=["127.0.0.0/8"]).send([EVENT], 1)
    assert (refused.verdict, allowed.verdict) == (Verdict.FAILED, Verdict.DELIVERED)


async def test_look_ups_that_hang_do_not_delay_other_hosts(webhook: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that hangs uses one thread, even for many look-ups, and none of the event loop's own threads."""
    release, begun = threading.Event(), []

    def look_up(host: str) -> list[object]:
        begun.append(host)
        release.wait(20)
        raise OSError("no name server")

    monkeypatch.setattr("headgate_server.delivery.resolver._look_up", look_up)
    dead = SystemResolver()
    try:
        waiting = [asyncio.create_task(dead.resolve(f"{number % 10}.example")) for number in range(100)]
        async with receiver(OK) as there:
            hanging = webhook(80, host="0.example", names=dead, timeout=0.2)
            assert (await hanging.send([EVENT], 1)).detail == "no answer within 0.2 s"
            assert (await webhook(there.port, names=Names({})).send([EVENT], 1)).verdict is Verdict.DELIVERED
            assert await asyncio.to_thread(os.getpid)
        assert sorted(begun) == [f"{number}.example" for number in range(10)]
        release.set()
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(error) for error in failed} == {"no name server"}
    finally:
        release.set()
        dead.close()


async def test_many_hosts_that_hang_do_not_delay_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """At first they fill all places. From then on they are known as slow, and have their own places."""
    release, heals = threading.Event(), False

    def look_up(host: str) -> list[object]:
        if host.startswith("hangs") and not heals:
            release.wait(20)
            raise OSError("no name server")
        return [ip_address("192.0.2.1")]

    monkeypatch.setattr("headgate_server.delivery.resolver._look_up", look_up)
    names = SystemResolver(quick=2, slow=3, soon=0.05)
    hosts = [f"hangs{number}.example" for number in range(5)]
    try:
        first = [asyncio.create_task(names.resolve(host)) for host in hosts]
        await until(lambda: _all_true(len(names._slow_hosts) == 5))
        release.set()
        assert {str(error) for error in await asyncio.gather(*first, return_exceptions=True)} == {"no name server"}
        release.clear()
        again = [asyncio.create_task(names.resolve(host)) for host in hosts]
        await until(lambda: _all_true(names._slow.locked()))
        async with asyncio.timeout(10):
            for number in range(5):
                assert await names.resolve(f"good{number}.example") == [ip_address("192.0.2.1")]
        assert not any(task.done() for task in again)
        heals = True
        release.set()
        await asyncio.gather(*again, return_exceptions=True)
        assert await names.resolve(hosts[0]) == [ip_address("192.0.2.1")]
        assert hosts[0] not in names._slow_hosts
    finally:
        release.set()
        names.close()


async def _all_true(state: bool) -> bool:
    return state


def test_the_process_ends_while_a_look_up_hangs() -> None:
    script = (
        "import asyncio, threading\n"
        "from headgate_server.delivery import resolver\n"
        "begun = threading.Event()\n"
        "def hang(host):\n"
        "    begun.set()\n"
        "    threading.Event().wait()\n"
        "resolver._look_up = hang\n"
        "async def main():\n"
        "    names = resolver.SystemResolver()\n"
        "    waiting = asyncio.ensure_future(names.resolve('hangs.example'))\n"
        "    await asyncio.to_thread(begun.wait)\n"
        "    names.close()\n"
        "    await asyncio.wait([waiting])\n"
        "    print(waiting.cancelled())\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")
