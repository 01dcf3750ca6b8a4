"""Draws which names at the root of the server's package import which, as they are in the code.

    python docs/design/imports.py docs/design/imports.svg             # the working tree
    python docs/design/imports.py docs/design/imports-before.svg 8bd18b0    # a commit

A row holds what imports only names of the rows below it. Grey lines are imports that a longer way implies; red ones
point up, against the rows: a circle. The same code makes the same file.
"""

import ast
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PACKAGE = "headgate_server"
_ROOT = Path(__file__).parents[2]
_FOLDER = Path("server", PACKAGE)

_WIDTH, _ROW, _BOX = 1120, 104, 34
_STYLE = """\
svg { background: #fff }
text { font: 13px sans-serif; text-anchor: middle } .title { font-weight: bold; text-anchor: start }
rect { fill: #eef3f8; stroke: #2f6fab } .few { font-size: 10px; fill: #666 }
path { fill: none; stroke: #2f6fab; stroke-width: 1.2 } .implied { stroke: #ccd3da; stroke-width: .7 }
.up { stroke: #b8433a; stroke-width: 2 }"""

Graph = Mapping[str, Sequence[str]]


def sources(commit: str | None) -> dict[str, str]:
    """Return the package's modules by dotted name, as they are in the working tree or in a commit."""
    if commit is None:
        files = {path.relative_to(_ROOT / _FOLDER): path.read_text() for path in (_ROOT / _FOLDER).rglob("*.py")}
    else:
        packed = subprocess.run(["git", "archive", commit, str(_FOLDER)], cwd=_ROOT, capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            found = {
                Path(name).relative_to(_FOLDER): archive.extractfile(name)
                for name in archive.getnames()
                if name.endswith(".py")
            }
            files = {path: file.read().decode() for path, file in found.items() if file is not None}
    return {
        ".".join(path.with_suffix("").parts).removesuffix("__init__").rstrip("."): text for path, text in files.items()
    }


def imported(text: str) -> Iterator[str]:
    """Yield what a module imports of the package, also within functions, by dotted name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}."))


def graph(modules: Mapping[str, str]) -> dict[str, list[str]]:
    """Return, for each name at the root, the others that it imports."""
    names = {module.partition(".")[0] for module in modules} - {"", "__main__"}
    found: dict[str, set[str]] = {name: set() for name in names}
    for module, text in modules.items():
        name = module.partition(".")[0]
        if name in names:
            found[name] |= {other.partition(".")[0] for other in imported(text)} & names - {name}
    return {name: sorted(found[name]) for name in sorted(found)}


def upward(edges: Graph) -> set[tuple[str, str]]:
    """Return the imports without which there is no circle: those that lead back to a name on the way to them."""
    back: set[tuple[str, str]] = set()
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        for other in edges[name]:
            if other in way:
                back.add((name, other))
            elif other not in done:
                visit(other, (*way, other))
        done.add(name)

    for name in edges:
        if name not in done:
            visit(name, (name,))
    return back


def rows(edges: Graph) -> list[list[str]]:
    """Return the names by row, the lowest first, each above all that it imports."""
    height: dict[str, int] = {}

    def climb(name: str) -> int:
        if name not in height:
            height[name] = max((climb(other) + 1 for other in edges[name]), default=0)
        return height[name]

    return [sorted(name for name in edges if climb(name) == row) for row in range(max(map(climb, edges)) + 1)]


def reachable(edges: Graph, name: str) -> set[str]:
    """Return what a name imports in the end."""
    found = set(edges[name])
    for other in edges[name]:
        found |= reachable(edges, other)
    return found


def places(levels: Sequence[Sequence[str]]) -> dict[str, tuple[float, float]]:
    """Return the middle of each name's box."""
    height = len(levels) * _ROW
    return {
        # Every other row is moved a little, so that fewer lines run through boxes.
        name: (_WIDTH * (number + 0.5 + 0.15 * (-1) ** row) / len(level), height - _ROW * row - _ROW / 2 + 24)
        for row, level in enumerate(levels)
        for number, name in enumerate(level)
    }


def drawn(title: str, modules: Mapping[str, str]) -> str:
    """Return the picture as SVG."""
    edges = graph(modules)
    back = upward(edges)
    down = {name: [other for other in others if (name, other) not in back] for name, others in edges.items()}
    at = places(rows(down))
    lines: dict[str, list[str]] = {"implied": [], "": [], "up": []}
    boxes: list[str] = []
    for name, others in edges.items():
        implied = set().union(*(reachable(down, other) for other in down[name]))
        for other in others:
            kind = "up" if (name, other) in back else "implied" if other in implied else ""
            (x, y), (to_x, to_y) = at[name], at[other]
            y, to_y = (y - _BOX / 2, to_y + _BOX / 2) if kind == "up" else (y + _BOX / 2, to_y - _BOX / 2)
            bend = (to_y - y) / 2
            line = f"M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f} {to_x:.0f} {to_y:.0f}"
            lines[kind].append(f'<path class="{kind}" d="{line}"/>' if kind else f'<path d="{line}"/>')
        count = sum(module == name or module.startswith(f"{name}.") for module in modules)
        (x, y), half = at[name], max(34.0, 4.2 * len(name) + 6)
        boxes += [
            f'<rect x="{x - half:.0f}" y="{y - _BOX / 2:.0f}" width="{2 * half:.0f}" height="{_BOX}" rx="5"/>',
            f'<text x="{x:.0f}" y="{y + 2:.0f}">{name}</text>',
            f'<text class="few" x="{x:.0f}" y="{y + 13:.0f}">{count} module{"s" if count > 1 else ""}</text>',
        ]
    caption = f"{title}: {len(edges)} names at the root, {sum(map(len, edges.values()))} imports between them"
    height = max(y for _, y in at.values()) + _ROW / 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}"><style>{_STYLE}</style>'
    text = f'<text class="title" x="10" y="20">{caption}</text>'
    return "\n".join([head, text, *lines["implied"], *lines[""], *lines["up"], *boxes, "</svg>"]) + "\n"


if __name__ == "__main__":
    target, commit = Path(sys.argv[1]), (sys.argv[2] if len(sys.argv) > 2 else None)
    target.write_text(drawn(f"{_FOLDER} at {commit}" if commit else str(_FOLDER), sources(commit)))
