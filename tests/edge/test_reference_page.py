"""The page /docs in a real browser: it shows the API, sends a request, and asks no other server."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.edge.conftest import MakeEdge
from tests.support.edge import Edge
from tests.support.openapi import DOCUMENT

_BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
    _BROWSER is None, reason="there is no browser on this machine: apt-get install chromium"
)


@pytest.fixture
def page() -> Iterator[Page]:
    """Return a page of a browser that has never been used before."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs a user namespace, which containers often forbid.
        browser = playwright.chromium.launch(executable_path=_BROWSER, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1400, "height": 1000})
        browser.close()


@pytest.fixture
def edge(make_edge: MakeEdge) -> Edge:
    """Return clients of an empty workspace."""
    return make_edge()


def test_the_page_shows_the_api_and_sends_a_request_and_asks_nobody_else(edge: Edge, page: Page) -> None:
    origin = f"http://{edge.up.rest}"
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{origin}/docs")

    for tag in DOCUMENT["tags"]:
        page.locator(f'a[href="#tag/{tag["name"].lower()}"]', has_text=tag["x-displayName"]).first.wait_for()
    send = page.get_by_role("button", name="Test Request").filter(has_text="/v1/events)")
    send.first.scroll_into_view_if_needed()

    # The commands of the page can be pasted as they are.
    page.get_by_text(f"curl {origin}/v1/events").first.wait_for()
    page.locator("input.scalar-password-input").first.fill(edge.key)
    send.first.click()
    with page.expect_response(f"{origin}/v1/events") as answered:
        page.get_by_role("button", name="Send post request to").click()
    assert answered.value.status == 200
    assert answered.value.json()["status"] == "accepted"
    assert edge.stored() == 1

    assert [url for url in asked if not url.startswith((f"{origin}/", "data:", "blob:"))] == []
    assert faults == []


def test_the_policy_stops_a_request_to_another_server(edge: Edge, page: Page) -> None:
    page.goto(f"http://{edge.up.rest}/docs")
    outcome = page.evaluate(
        """async () => {
            const stopped = new Promise(done => addEventListener("securitypolicyviolation", e => done(e.blockedURI)));
            const sent = await fetch("http://localhost:9/").then(() => "sent", () => "refused");
            return [sent, await stopped];
        }"""
    )
    assert outcome == ["refused", "http://localhost:9/"]
