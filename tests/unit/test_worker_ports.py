"""The ports of several workers: for calls and for probes, beside each other and beside those of the service."""

import socket
from collections.abc import Iterator, Sequence

import pytest

from headgate_server.cli.workers import workers_of
from headgate_server.config import Settings
from headgate_server.core.errors import SetupError
from headgate_server.process.ports import HIGHEST_PORT
from headgate_server.rpc.server import ServerConfig

HOST = "127.0.0.1"


@pytest.fixture
def free() -> Iterator[int]:
    """Return the first of four ports in a row that are free now, below those of outgoing connections."""
    for first in range(20_011, 32_000, 4):
        if all(_is_free(first + index) for index in range(4)):
            yield first
            return


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex((HOST, port)) != 0


def _ports(
    grpc: int, health: int | None, *, at_leisure: bool = False, others: Sequence[int] = ()
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the ports of two workers for calls, and those for probes."""
    settings = Settings(workers=2, server=ServerConfig(host=HOST, port=grpc, health_port=health))
    with workers_of(settings, 1, at_leisure=at_leisure, others=others) as (workers, ports):
        lines = [dict(part.split("=", 1) for part in child._arguments if "=" in part) for child in workers.children]
    assert [int(line["--grpc-port"]) for line in lines] == list(ports)
    return ports, [int(line["--health-port"]) for line in lines if "--health-port" in line]


def test_each_has_the_next_of_both(free: int) -> None:
    assert _ports(free, free + 2) == ([free, free + 1], [free + 2, free + 3])
    assert _ports(free, None) == ([free, free + 1], [])


@pytest.mark.parametrize("at_leisure", [False, True])
def test_any_free_ones(at_leisure: bool) -> None:
    calls, probes = _ports(0, 0, at_leisure=at_leisure)
    assert len({*calls, *probes, 0}) == 5


@pytest.mark.parametrize("apart", [-1, 0, 1])
def test_a_port_for_both_is_refused(free: int, apart: int) -> None:
    with pytest.raises(SetupError, match=f"--health-port {free + 1 + apart} is among the ports of --grpc-port"):
        _ports(free + 1, free + 1 + apart)


def test_a_port_for_probes_that_is_taken_is_refused(free: int) -> None:
    with socket.create_server((HOST, free + 3)):
        wanted = f"cannot listen on {HOST}:{free + 3} for probes: the port is in use"
        with pytest.raises(SetupError, match=wanted):
            _ports(free, free + 2)


def test_the_number_that_nobody_asked_for_gives_way(free: int) -> None:
    """With `--workers auto` only the first worker's ports are fixed."""
    calls, probes = _ports(free, free + 1, at_leisure=True)
    assert (calls[0], probes) == (free, [free + 1, free + 2])
    assert calls[1] not in (free, *probes)
    with socket.create_server((HOST, free + 3)):
        calls, probes = _ports(free, free + 2, at_leisure=True)
        assert (calls, probes[0]) == ([free, free + 1], free + 2)
        assert probes[1] not in (free + 3, *calls)
    calls, probes = _ports(free, free + 2, at_leisure=True, others=(free + 1, free + 3))
    assert (calls[0], probes[0]) == (free, free + 2)
    assert not {free + 1, free + 3} & {*calls, *probes}
    _ports(HIGHEST_PORT, free, at_leisure=True)


def test_the_first_one_s_are_never_moved(free: int) -> None:
    with pytest.raises(SetupError, match="is among the ports"):
        _ports(free, free, at_leisure=True)
    with socket.create_server((HOST, free)), pytest.raises(SetupError, match="for probes: the port is in use"):
        _ports(0, free, at_leisure=True)
