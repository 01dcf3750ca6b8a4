"""The programs of docs/client.md, as they stand there."""

import asyncio
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from celery import Celery

from headgate_client import Client
from tests.client.conftest import Served
from tests.support.waiting import GUARD, listens, until_true

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
_RECIPE = re.compile(r"^### (.+?)\n+```python\n(.*?)```", re.MULTILINE | re.DOTALL)
RECIPES = dict(_RECIPE.findall(PAGE))


class Place:
    """A folder with the program of a recipe, and the workspace that it sends to."""

    def __init__(self, served: Served, key: str, folder: Path):
        self._served = served
        self._key = key
        self.folder = folder
        self.environment = {
            **os.environ,
            "HEADGATE_URL": served.address,
            "HEADGATE_KEY": key,
            "PYTHONPATH": str(folder),
        }

    def write(self, recipe: str, name: str) -> Path:
        """Write the program of a recipe."""
        path = self.folder / f"{name}.py"
        path.write_text(RECIPES[recipe])
        return path

    def load(self, recipe: str, name: str) -> ModuleType:
        """Import the program of a recipe."""
        spec = importlib.util.spec_from_file_location(name, self.write(recipe, name))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def stored(self) -> list[object]:
        """Return the data of the stored events."""
        with Client(self._served.address, api_key=self._key) as client:
            return [event.data for event in client.list().events()]


@pytest.fixture
def place(served: Served, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return the place, with the environment of its programs in this process too."""
    made = Place(served, key, tmp_path)
    monkeypatch.setenv("HEADGATE_URL", served.address)
    monkeypatch.setenv("HEADGATE_KEY", key)
    monkeypatch.chdir(tmp_path)  # a broker in files makes folders
    return made


def test_every_recipe_is_run():
    assert set(RECIPES) == {
        "A script",
        "FastAPI",
        "A Celery worker",
        "gunicorn with --preload",
        "A function that lives for a short time (AWS Lambda)",
    }


def test_a_script(place):
    program = place.write("A script", "script")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, program],
            input="a\nb\nc\n",
            text=True,
            capture_output=True,
            env=place.environment,
            check=True,
        )
        assert done.stderr == ""
    assert done.stdout == "0\n", "the second time they are duplicates"
    assert place.stored() == [{"text": "a"}, {"text": "b"}, {"text": "c"}]


async def test_fastapi(place):
    module = place.load("FastAPI", "service")
    transport = httpx.ASGITransport(module.app)
    async with module.app.router.lifespan_context(module.app), httpx.AsyncClient(transport=transport) as http:
        answer = await http.post("http://localhost/orders/7")
        assert answer.json() == {"number": 7}
    assert await asyncio.to_thread(place.stored) == [{"number": 7}]


def test_celery(place):
    place.write("A Celery worker", "shop")
    folder = place.folder / "broker"
    folder.mkdir()
    options = {name: str(folder) for name in ("data_folder_in", "data_folder_out", "control_folder")}
    # A broker in files takes its folders from the application.
    worker_of = f"from shop import app\napp.conf.broker_transport_options = {options!r}\n"
    (place.folder / "on_files.py").write_text(worker_of)
    environment = {**place.environment, "BROKER": "filesystem://"}
    with (place.folder / "log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "on_files", "worker", "--concurrency", "2", "--loglevel", "info"],
            cwd=place.folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        with Celery("shop", broker="filesystem://", broker_transport_options=options) as producer:
            for number in range(20):
                producer.send_task("shop.order", args=[number], ignore_result=True)
        until_true(lambda: (place.folder / "log").read_text().count("succeeded") == 20, seconds=60)
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    finally:
        worker.kill()
        worker.wait()
    numbers = sorted(data["number"] for data in place.stored())
    assert numbers == list(range(20)), (place.folder / "log").read_text()


def test_gunicorn(place):
    place.write("gunicorn with --preload", "web")
    socket = place.folder / "gunicorn.sock"
    with (place.folder / "log").open("w") as log:
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--preload",
            "--workers",
            "2",
            "--bind",
            f"unix:{socket}",
            "web:app",
        ]
        gunicorn = subprocess.Popen(command, cwd=place.folder, env=place.environment, stdout=log, stderr=log)
    try:
        until_true(lambda: listens(socket))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost") as http:
            assert [http.get(f"/{number}").status_code for number in range(10)] == [204] * 10
        gunicorn.send_signal(signal.SIGTERM)
        assert gunicorn.wait(GUARD) == 0
    finally:
        gunicorn.kill()
        gunicorn.wait()
    assert sorted(data["path"] for data in place.stored()) == [f"/{number}" for number in range(10)]


def test_a_function_that_lives_for_a_short_time(place):
    module = place.load("A function that lives for a short time (AWS Lambda)", "function")
    event = {"id": "1", "name": "report.pdf"}
    assert module.handler(event, None) == {"status": "accepted"}
    assert module.handler(event, None) == {"status": "duplicate"}
    assert place.stored() == [{"name": "report.pdf"}]
    module.buffer.close()
