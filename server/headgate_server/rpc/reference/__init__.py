"""The files of the reference page and the OpenAPI document, as they are served: compressed, with a tag for caches.

`scalar.js.gz` is the one standalone file of the npm package `@scalar/api-reference`; `make reference` writes it again.
"""

import base64
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

_HERE = Path(__file__).parent
_PART = 64 * 1024
"""Bytes of a message: a reader that is slow holds few of them."""
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{hash}'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's policy: whatever its program tries, a browser sends nothing to another server. Its styles are inline."""


@dataclass(frozen=True, slots=True)
class File:
    """One file."""

    content_type: str
    compressed: bytes
    """In gzip."""
    tag: str
    """A hash of the content."""
    policy: str = ""
    """Its Content-Security-Policy; empty if it is no page."""

    def parts(self, *, compressed: bool) -> Iterator[bytes]:
        """Yield the content in parts, compressed or not."""
        inflate = zlib.decompressobj(wbits=31)
        for start in range(0, len(self.compressed), _PART):
            part = self.compressed[start : start + _PART]
            if compressed:
                yield part
                continue
            while part:
                yield inflate.decompress(part, _PART)
                part = inflate.unconsumed_tail
        if rest := inflate.flush():
            yield rest


@cache
def open_api() -> File:
    """Return the OpenAPI document."""
    packaged = _HERE / "openapi.json"
    # In a checkout it is where it is generated.
    path = packaged if packaged.exists() else _HERE.parents[3] / "generated" / "openapi.json"
    return _file("application/json", path.read_bytes())


@cache
def page() -> File:
    """Return the reference page."""
    content = (_HERE / "page.html").read_bytes()
    # Browsers run the page's own script because the policy has its hash, and no other script within a page.
    (script,) = _SCRIPT.findall(content.decode())
    hashed = base64.b64encode(sha256(script.encode()).digest()).decode()
    return _file("text/html; charset=utf-8", content, _POLICY.format(hash=hashed))


@cache
def script() -> File:
    """Return the program of the reference page."""
    compressed = (_HERE / "scalar.js.gz").read_bytes()
    return File("text/javascript; charset=utf-8", compressed, _tag(compressed))


def _file(content_type: str, content: bytes, policy: str = "") -> File:
    return File(content_type, gzip.compress(content, mtime=0), _tag(content), policy)


def _tag(content: bytes) -> str:
    return sha256(content).hexdigest()[:32]
