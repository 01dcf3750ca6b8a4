"""Writes the program of the reference page: the one standalone file of a pinned npm package, compressed.

A development tool, which needs npm and the registry: `make reference`, after `VERSION`, `INTEGRITY` and `SHA256` were
changed.
"""

import base64
import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@scalar/api-reference"
VERSION = "1.76.0"
INTEGRITY = "sha512-pjqwnzmA9YK3ZX+IZSICMsywm4qI6HLSngR2py9H6TvFApHHuJjkTAd+gFJfnqJDzJuro8k7ji6JCtJ2U+Byng=="
"""Of the package, as the registry says it: `npm view @scalar/api-reference@VERSION dist.integrity`."""
SHA256 = "dcb027152bf20bf2f6dcd66e8f9fb073c1a9e274cf0b94b939a7d99ab8947060"
"""Of the file in it."""
MEMBER = "package/dist/browser/standalone.js"
TARGET = Path(__file__).resolve().parents[2] / "server" / "headgate_server" / "rpc" / "reference" / "scalar.js.gz"


def main() -> int:
    """Write the file. Return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"{PACKAGE}@{VERSION}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        (package,) = Path(folder).glob("*.tgz")
        found = "sha512-" + base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        with tarfile.open(package) as archive:
            member = archive.extractfile(MEMBER)
            program = b"" if member is None else member.read()
    if (found, hashlib.sha256(program).hexdigest()) != (INTEGRITY, SHA256):
        print(f"{PACKAGE} {VERSION} is another package than the pinned one: {found}", file=sys.stderr)
        return 1
    TARGET.write_bytes(gzip.compress(program, compresslevel=9, mtime=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
