"""The bridge's temporary folders are removed if their owner has ended, and only then."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headgate_bridge import folder
from headgate_bridge.folder import PREFIX, PrivateFolder, remove_abandoned

ROUNDS = 100


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the test a temporary folder with a short path, and no other folder to search."""
    with tempfile.TemporaryDirectory(prefix="hgt-", dir="/tmp") as path:
        monkeypatch.setattr(tempfile, "tempdir", path)
        monkeypatch.setattr(folder, "SHORT", path)
        yield Path(path)


def _abandoned() -> Path:
    """Return a folder with files whose owner has ended."""
    left = PrivateFolder()
    (left.path / "envoy.json").write_text("{}")
    os.close(left._lock)  # as the kernel does
    return left.path


def test_an_abandoned_one_goes_and_one_in_use_stays(temporary: Path) -> None:
    left, used = _abandoned(), PrivateFolder()
    assert left.parent == used.path.parent == temporary
    remove_abandoned()
    assert list(temporary.iterdir()) == [used.path]
    used.remove()
    used.remove()
    assert not list(temporary.iterdir())


def test_what_is_not_ours_stays(temporary: Path) -> None:
    other_user, other_name, file = temporary / f"{PREFIX}user", temporary / "headgate-x", temporary / f"{PREFIX}file"
    link, target = temporary / f"{PREFIX}link", temporary / "target"
    for path in (other_user, other_name, target):
        path.mkdir()
        (path / "content").touch()
    file.touch()
    link.symlink_to(target)
    expected = {other_name, file, link, target}
    if os.geteuid() == 0:
        os.chown(other_user, 65534, 65534)
        expected.add(other_user)
    remove_abandoned()
    assert set(temporary.iterdir()) == expected
    assert (target / "content").exists()


def test_one_that_is_just_made_is_never_taken_for_abandoned(temporary: Path) -> None:
    """Many threads make folders while others search for abandoned ones."""

    def make(_: int) -> bool:
        made = PrivateFolder()
        there = made.path.is_dir()
        (made.path / "file").touch()
        made.remove()
        return there

    with ThreadPoolExecutor(8) as pool:
        cleaners = [pool.submit(lambda: [remove_abandoned() for _ in range(ROUNDS)]) for _ in range(3)]
        assert all(pool.map(make, range(4 * ROUNDS)))
        for cleaner in cleaners:
            cleaner.result()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("name", [pytest.param("x" * 90, id="too long"), pytest.param("\udcff", id="not UTF-8")])
def test_a_path_that_envoy_cannot_use(temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (temporary / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / name))
    made = PrivateFolder()
    assert made.path.parent == temporary
    made.remove()
