"""/openapi.json and the reference page /docs: for everyone, well cached, and with a policy that lets nothing out."""

import gzip
from collections.abc import Iterator

import httpx
import pytest

from tests.edge.conftest import MakeEdge
from tests.support.edge import Edge, failure
from tests.support.openapi import BY_ID, PATH, check_answer

FILES = {"/openapi.json": "getOpenApi", "/docs": "getReference", "/docs/scalar.js": "getReferenceScript"}


@pytest.fixture
def visitor(make_edge: MakeEdge) -> Iterator[httpx.Client]:
    """Return a client without a key."""
    with httpx.Client(base_url=f"http://{make_edge().up.rest}", timeout=30) as client:
        yield client


def test_the_document_is_the_generated_one(visitor: httpx.Client) -> None:
    response = visitor.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.content == PATH.read_bytes()


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_compressed_and_kept_by_caches(visitor: httpx.Client, path: str) -> None:
    plain = visitor.get(path, headers={"accept-encoding": "identity"})
    packed = visitor.get(path, headers={"accept-encoding": "br, gzip;q=0.5"})
    refused = visitor.get(path, headers={"accept-encoding": "gzip;q=0"})
    assert "content-encoding" not in plain.headers.keys() | refused.headers.keys()
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content == refused.content
    assert plain.headers["etag"] != packed.headers["etag"]
    for response in (plain, packed):
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["vary"] == "accept-encoding"
        assert response.headers["x-content-type-options"] == "nosniff"
        for known in (response.headers["etag"], f'"x", W/{response.headers["etag"]}', "*"):
            again = visitor.get(path, headers={"if-none-match": known})
            assert (again.status_code, again.content) == (304, b"")
            check_answer(BY_ID[FILES[path]], 304, again.headers, again.content)
    assert visitor.get(path, headers={"if-none-match": '"other"'}).status_code == 200
    head = visitor.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", packed.headers["etag"])


def test_a_compressed_file_travels_compressed(visitor: httpx.Client) -> None:
    with visitor.stream("GET", "/docs/scalar.js", headers={"accept-encoding": "gzip"}) as response:
        sent = b"".join(response.iter_raw())
    assert len(sent) < 1_500_000 < len(gzip.decompress(sent))


def test_the_page_may_reach_its_own_server_alone(visitor: httpx.Client) -> None:
    policy = dict(
        each.strip().partition(" ")[::2] for each in visitor.get("/docs").headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].split()[0] == "'self'"
    assert not any("http" in sources or "*" in sources or "eval" in sources for sources in policy.values())
    assert {"base-uri", "form-action", "frame-ancestors"} <= policy.keys()


def test_other_files_do_not_exist(visitor: httpx.Client) -> None:
    for path in ("/docs/nothing", "/docs/../../etc/passwd", "/docs/scalar.js.gz", "/openapi"):
        assert failure(visitor.get(path)) == (404, 5, "NO_SUCH_PATH")
    assert failure(visitor.post("/docs", json={})) == (404, 5, "NO_SUCH_PATH")


def test_a_key_changes_nothing(edge: Edge) -> None:
    assert edge.http.get("/openapi.json").content == PATH.read_bytes()
