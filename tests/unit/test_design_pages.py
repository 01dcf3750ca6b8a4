"""Pages of docs/design name the parts that are there, all of them, and no others."""

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent.parent
_DESIGN = _ROOT / "docs" / "design"
_SERVER = _ROOT / "server" / "headgate_server"
_STORE = _SERVER / "store"


def _block(page: str) -> str:
    """Return the first block of code of a page."""
    return (_DESIGN / page).read_text().split("```")[1]


def _modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def test_the_page_of_the_store_names_every_topic() -> None:
    named = set(re.findall(r"^ {4}(\w+)\.py", _block("store.md"), re.MULTILINE))
    assert named == _modules(_STORE)


@pytest.mark.parametrize("dialect", ["sqlite", "postgres", "citus"])
def test_the_page_of_the_store_names_every_module_of_a_dialect(dialect: str) -> None:
    (lines,) = re.findall(rf"^ {{4}}{dialect}/(.*\n(?: {{6,}}.*\n)*)", _block("store.md"), re.MULTILINE)
    assert set(re.findall(r"(\w+)\.py", lines)) == _modules(_STORE / dialect)


def test_the_page_of_background_work_names_every_job() -> None:
    """A job is what has a `NAME`; the receivers have one of their own."""
    sources = [path.read_text() for path in _SERVER.rglob("*.py") if path.parent.name != "receivers"]
    jobs = {name for text in sources for name in re.findall(r"^NAME = \"([\w-]+)\"$", text, re.MULTILINE)}
    page = (_DESIGN / "background.md").read_text().partition("The jobs of a server:")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == jobs


def test_the_page_of_the_client_names_every_module() -> None:
    client = _ROOT / "client" / "headgate_client"
    named = set(re.findall(r"\w+", _block("client.md")))
    assert _modules(client) - named == set()
    assert "core" in named


def test_the_page_of_the_wire_names_every_view_of_the_bridge() -> None:
    """Those of bodies that create or change something are named by what they change."""
    view = (_ROOT / "proto" / "headgate" / "v1" / "bridge_view.proto").read_text()
    page = (_DESIGN / "wire.md").read_text()
    views = re.findall(r"^message Raw(\w+Request) ", view, re.MULTILINE)
    changing = ("destinations", "event types", "workspaces", "keys")
    words = re.compile("Destination|PutEventType|Workspace|Key")
    assert len(views) > 15
    assert [name for name in views if name not in page and not words.search(name)] == []
    assert all(word in page for word in changing)
