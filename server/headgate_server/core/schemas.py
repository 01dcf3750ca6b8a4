"""Examines JSON Schemas (2020-12) of callers: that they refer to nothing outside themselves, and how much work they can
make. Pure.

jsonschema-rs holds the interpreter's lock while it checks, so a check that takes long stops every other call of the
process. `Examined.steps` says how much work an event can make at most; only what is surely little may run here.
docs/design/event-types.md has the measurements.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urldefrag, urljoin

from headgate_server.core.errors import InvalidRequest
from headgate_server.core.reasons import Reason

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_ONE = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAP = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
"""The keywords that have one schema, a list of schemas, and a map of schemas."""
_NOT_APPLIED = frozenset({"$defs", "definitions", "contentSchema"})
"""Keywords whose schemas are used only if a reference leads to them."""
_DYNAMIC = frozenset({"$dynamicRef", "unevaluatedItems", "unevaluatedProperties"})
"""Keywords that depend on what other keywords found: their work is not bounded by the number of schemas."""

_MOST_SCHEMAS = 2_000
"""The most schemas, with all references followed, for which the work is counted."""
_PATTERN_UNIT = 10
"""A regular expression of this size takes as long for each byte as a schema does for each value."""
_LARGE = 10**9
_REPETITION = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


class Examined(NamedTuple):
    """What a schema was found to be."""

    steps: int | None
    """The most steps that a check takes for each byte of data. A step takes some 15 ns at most. None: no bound."""


class _Unbounded(Exception):
    """The work cannot be counted."""


def examine(schema: Any) -> Examined:
    """Return how much work a schema can make. Raises `InvalidRequest` if it refers outside itself, or says that it is
    of another dialect. It need not be a schema otherwise.
    """
    _check_references(schema)
    try:
        return Examined(_Count(schema).steps())
    except _Unbounded:
        return Examined(None)


def invalid(message: str, path: str = "") -> InvalidRequest:
    """Return the error for a schema that is not accepted. `path` is the place in the schema."""
    return InvalidRequest(message, reason=Reason.INVALID_SCHEMA, field=f"schema.{path}" if path else "schema")


def _check_references(schema: Any) -> None:
    """Raise `InvalidRequest` if a reference leads to another document, or if a schema has another dialect."""
    documents = {""}
    references: list[tuple[str, str, str]] = []
    waiting: list[tuple[Any, str, str]] = [(schema, "", "")]
    while waiting:
        node, base, path = waiting.pop()
        if type(node) is not dict:
            continue
        if type(name := node.get("$id")) is str:
            base = _joined(base, name, path)
            documents.add(base)
        dialect = node.get("$schema")
        if dialect is not None and (type(dialect) is not str or dialect.rstrip("#") != DIALECT):
            raise invalid(f"A schema must be of JSON Schema 2020-12: $schema is {DIALECT}.", _deeper(path, "$schema"))
        references += (
            (_joined(base, node[word], _deeper(path, word)), node[word], _deeper(path, word))
            for word in ("$ref", "$dynamicRef")
            if type(node.get(word)) is str
        )
        waiting += ((child, base, _deeper(path, *steps)) for steps, child in _schemas(node))
    for document, reference, path in references:
        if document not in documents:
            shown = reference if len(reference) <= 80 else reference[:79] + "…"
            raise invalid(f'A schema may only refer to itself: "{shown}" is another document.', path)


def _joined(base: str, reference: str, path: str) -> str:
    try:
        return urldefrag(urljoin(base, reference)).url
    except ValueError:
        raise invalid("A reference or an $id is not a URI.", path) from None


def _deeper(path: str, *steps: str) -> str:
    """Return the path of a part, at most some hundred characters of it."""
    whole = ".".join((path, *steps)) if path else ".".join(steps)
    return whole if len(whole) <= 200 else whole[:199] + "…"


def _schemas(node: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the schemas directly in a schema, each with its place: the keyword, and the name or the index."""
    for word, value in node.items():
        if word in _ONE:
            yield (word,), value
        elif word in _LIST and type(value) is list:
            yield from (((word, str(index)), each) for index, each in enumerate(value))
        elif word in _MAP and type(value) is dict:
            yield from (((word, name), each) for name, each in value.items())


class _Count:
    """Counts the steps of a schema: all the schemas that it applies, with the references followed, as a tree.

    A value in the data is checked by each of them at most once, and by each regular expression. So steps times bytes is
    a bound. A schema that refers to itself has no bound of this kind.
    """

    def __init__(self, schema: Any):
        self._root = schema
        self._anchors: dict[str, Any] = {}
        self._counted: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()
        self._find_anchors(schema)

    def steps(self) -> int:
        """Return the steps for each byte. Raises `_Unbounded`."""
        return self._of(self._root)[0]

    def _find_anchors(self, schema: Any) -> None:
        waiting = [schema]
        while waiting:
            node = waiting.pop()
            if type(node) is dict:
                if type(anchor := node.get("$anchor")) is str:
                    self._anchors[anchor] = node
                waiting += (child for _, child in _schemas(node))

    def _of(self, node: Any) -> tuple[int, int]:
        """Return the steps and the number of schemas of one schema. Raises `_Unbounded`."""
        if type(node) is not dict:
            return 1, 1
        known = self._counted.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open or len(self._open) > 100 or not _DYNAMIC.isdisjoint(node):
            raise _Unbounded
        if "$id" in node and node is not self._root:
            raise _Unbounded
        self._open.add(id(node))
        steps, schemas = self._sum(node)
        self._open.discard(id(node))
        if schemas > _MOST_SCHEMAS:
            raise _Unbounded
        self._counted[id(node)] = steps, schemas
        return steps, schemas

    def _sum(self, node: dict[str, Any]) -> tuple[int, int]:
        steps, schemas = 1 + sum(weigh(node[word]) for word, weigh in _WEIGHTS.items() if word in node), 1
        parts = [child for (word, *_), child in _schemas(node) if word not in _NOT_APPLIED]
        if "$ref" in node:
            parts.append(self._target(node["$ref"]))
        for part in parts:
            more_steps, more_schemas = self._of(part)
            steps, schemas = steps + more_steps, schemas + more_schemas
        return steps, schemas

    def _target(self, reference: Any) -> Any:
        """Return the schema that a reference leads to. Raises `_Unbounded` if it is not of the simplest kinds."""
        if type(reference) is not str or not reference.startswith("#"):
            raise _Unbounded
        if not reference.startswith("#/"):
            if reference == "#":
                return self._root
            return self._anchors.get(reference[1:], True)
        node = self._root
        for step in reference[2:].split("/"):
            if "%" in step:
                raise _Unbounded
            name = step.replace("~1", "/").replace("~0", "~")
            if type(node) is dict:
                node = node.get(name, True)
            elif type(node) is list and name.isdecimal() and int(name) < len(node):
                node = node[int(name)]
        return node


def _size(value: Any) -> int:
    """Return the number of values in a value."""
    if type(value) is dict:
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if type(value) is list else 1


def _choices(options: Any) -> int:
    """Return the steps of `enum`. Texts and numbers are looked up; anything else is compared with each option."""
    if type(options) is not list:
        return 1
    return sum(_size(option) for option in options if type(option) in (dict, list))


def _pattern(pattern: Any) -> int:
    """Return the steps of a regular expression for each byte, from the size that its repetitions expand to. Raises
    `_Unbounded` if it is large; a Unicode class is large.
    """
    if type(pattern) is not str:
        return 0
    counts = [int(most or least) for least, most in _REPETITION.findall(pattern)]
    if any(count > 1_000 for count in counts) or "\\p{" in pattern.lower():
        raise _Unbounded
    size = len(pattern)
    if "){" in pattern:
        for count in counts:
            size = min(size * max(1, count), _LARGE)
    else:
        size += 8 * sum(counts)
    return 1 + size // _PATTERN_UNIT


def _patterns(properties: Any) -> int:
    return sum(map(_pattern, properties)) if type(properties) is dict else 0


def _names(value: Any) -> int:
    """Return the steps of `required` and `dependentRequired`."""
    return _size(value) // 4


_WEIGHTS: dict[str, Callable[[Any], int]] = {
    "const": _size,
    "enum": _choices,
    "required": _names,
    "dependentRequired": _names,
    "uniqueItems": lambda _: 20,
    "pattern": _pattern,
    "patternProperties": _patterns,
}
"""The steps of keywords that take more than a schema does."""
