"""Makes everything under `generated/` from `proto/`: Python modules, type stubs, the descriptor set that Envoy reads,
and the OpenAPI document.

A development tool; the service does not import it. `make install` installs the compiler (`grpcio-tools`) and `buf`. The
compiler is that of the oldest protobuf that a client may use: its output also works with the next major.

    python -m headgate_bridge.generate               writes generated/
    python -m headgate_bridge.generate --check       exits 1 with a diff if generated/ is not what proto/ says
    python -m headgate_bridge.generate --image FILE  writes the compiled protos with comments, for buf
    python -m headgate_bridge.generate --release     writes proto/released.binpb, which `buf breaking` compares against:
                                                     run it when a version is released, never to hide a finding
"""

from __future__ import annotations

import argparse
import difflib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import google.api
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from headgate_bridge.descriptor import envoy_view
from headgate_bridge.openapi import document

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
GENERATED = ROOT / "generated"
RELEASED = PROTO / "released.binpb"
DESCRIPTOR = "headgate.binpb"
OPENAPI = "openapi.json"

# No message of ours names them. They are details of errors, and Envoy prints only types of its descriptor.
ERROR_DETAIL_PROTOS = ("google/rpc/status.proto", "google/rpc/error_details.proto")

# Regular packages, not namespace packages: an editable install, a wheel and the type checker then agree.
PACKAGE_FILES = {
    "headgate/__init__.py": '"""Protocol buffers of Headgate, and nothing else."""\n',
    "headgate/py.typed": "",
    "headgate/third_party/__init__.py": '"""Other projects\' messages."""\n',
    "headgate/third_party/cloudevents/__init__.py": '"""The messages of the CloudEvents specification."""\n',
    "headgate/v1/__init__.py": '"""Version 1: messages, stubs and servicers, generated from proto/headgate/v1."""\n',
}


class GenerateError(Exception):
    """The protos do not compile. The message is the compiler's."""


def protoc(*arguments: str) -> None:
    """Run the protocol compiler on all our protos with the given options and further files.

    Raises `GenerateError` if the compiler fails.
    """
    googleapis = Path(next(iter(google.api.__path__))).parents[1]
    ours = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))
    # In a separate process: the compiler keeps global state, and writes its errors to the descriptor, not to
    # sys.stderr.
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{googleapis}", *arguments, *ours],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise GenerateError(done.stderr.strip())


def write_modules(target: Path) -> None:
    """Write the Python package `headgate` into `target`, an existing folder."""
    protoc(f"--python_out={target}", f"--pyi_out={target}", f"--grpc_python_out={target}")
    for name, text in PACKAGE_FILES.items():
        (target / name).write_text(text, encoding="utf-8")
    for module in target.rglob("*_pb2_grpc.py"):
        # A proto without a service gets an empty module.
        if "class " not in module.read_text(encoding="utf-8"):
            module.unlink()


def compile_image(*, comments: bool) -> bytes:
    """Return our protos and all their imports, compiled, with or without comments."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        options = ["--include_imports", f"--descriptor_set_out={image}"]
        protoc(*options, *(["--include_source_info"] if comments else []))
        return image.read_bytes()


def write_descriptor(target: Path) -> None:
    """Write the descriptor set for Envoy to `target`; equal protos give equal bytes."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        protoc("--include_imports", f"--descriptor_set_out={image}", *ERROR_DETAIL_PROTOS)
        view = envoy_view(FileDescriptorSet.FromString(image.read_bytes()))
    target.write_bytes(view.SerializeToString(deterministic=True))


def write_openapi(target: Path) -> None:
    """Write the OpenAPI document to `target`. Raises `GenerateError` if protos, tables and examples do not fit."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        made = document(FileDescriptorSet.FromString(compile_image(comments=True)), project["version"])
    except ValueError as error:
        raise GenerateError(f"openapi.json: {error}") from error
    target.write_bytes(made)


def write_all(target: Path) -> None:
    """Write all of `generated/` into `target`, an existing folder, and remove files that no proto needs any more."""
    shutil.rmtree(target / "headgate", ignore_errors=True)
    write_modules(target)
    write_descriptor(target / DESCRIPTOR)
    write_openapi(target / OPENAPI)


def differences(expected: Path, actual: Path) -> list[str]:
    """Return the lines of a diff from the folder `actual` to the folder `expected`; none if they agree."""
    lines: list[str] = []
    for name in sorted(_files(expected) | _files(actual)):
        want, have = _read(expected / name), _read(actual / name)
        if want == have:
            continue
        if name.endswith(".binpb") or want is None or have is None:
            fault = "is missing" if have is None else "comes from no proto" if want is None else "differs"
            lines.append(f"generated/{name} {fault}")
        else:
            before, after = (text.decode("utf-8").splitlines() for text in (have, want))
            names = (f"generated/{name}", f"regenerated/{name}")
            lines += difflib.unified_diff(before, after, *names, n=1, lineterm="")
    return lines


def _files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def check() -> int:
    """Print how `generated/` differs from the protos' output. Return the exit code: 0 if there is no difference."""
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder))
        lines = differences(Path(folder), GENERATED)
    if not lines:
        return 0
    print("\n".join(lines))
    print("\ngenerated/ is out of date: run `make generate`.", file=sys.stderr)
    return 1


def main() -> int:
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m headgate_bridge.generate", description=about)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="write nothing; exit 1 if generated/ is out of date")
    what.add_argument("--image", type=Path, metavar="FILE", help="write the compiled protos to FILE")
    what.add_argument("--release", action="store_true", help="write proto/released.binpb, the base of `buf breaking`")
    options = parser.parse_args()
    try:
        if options.check:
            return check()
        if options.image:
            options.image.write_bytes(compile_image(comments=True))
        elif options.release:
            RELEASED.write_bytes(compile_image(comments=False))
        else:
            GENERATED.mkdir(exist_ok=True)
            write_all(GENERATED)
    except GenerateError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
