"""The catalogue of reasons against the code: the server's, the bridge's, and the page."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

import headgate_server
from headgate_server.core import errors, settle
from headgate_server.core.errors import HeadgateError
from headgate_server.core.ledger import BreakType
from headgate_server.core.reasons import CATALOGUE, Answer, Reason
from headgate_server.rpc import status
from tests.support.reasons_page import PAGE, page

_SERVER = Path(headgate_server.__file__).parent
_ROOT = Path(__file__).parent.parent.parent
_DEFINITIONS = {"core/reasons.py", "core/ledger.py"}
# Words that mean something else elsewhere: a gRPC code in a log line.
_CODES = {code.name for code in grpc.StatusCode}

_OF_AN_EVENT = {"Problem", "Invalid", "Unrepresentable"}
"""The calls that put a reason into the result of one event."""


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(_SERVER.rglob("*.py")):
        yield str(path.relative_to(_SERVER)), ast.parse(path.read_text())


def _reasons_in(node: ast.AST) -> Iterator[Reason]:
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "Reason":
            yield Reason[each.attr]


def _answer(kind: type[HeadgateError]) -> Answer:
    error = kind.__new__(kind)
    return Answer(status.code_of(error).grpc.name, status.http_of(error))


@cache
def _raised() -> tuple[dict[Reason, set[Answer]], set[Reason]]:
    """Return what the server's code makes: the answers of each reason, and the reasons of events."""
    answers: dict[Reason, set[Answer]] = defaultdict(set)
    of_events: set[Reason] = set()
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, HeadgateError):
            answers[kind.reason].add(_answer(kind))
    for _, tree in _trees():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            kind = getattr(errors, name, None)
            arguments = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "reason")]
            for reason in (found for argument in arguments for found in _own(argument)):
                if isinstance(kind, type) and issubclass(kind, HeadgateError):
                    answers[reason].add(_answer(kind))
                elif name in _OF_AN_EVENT:
                    of_events.add(reason)
    return answers, of_events


def _own(argument: ast.expr) -> Iterator[Reason]:
    """Yield the reason that an argument is, not one within another call."""
    if isinstance(argument, ast.Attribute):
        yield from _reasons_in(argument)


@cache
def _bridges() -> dict[Reason, set[Answer]]:
    """Return the answers that envoy.yaml gives by itself."""
    listener = yaml.safe_load((_ROOT / "envoy.yaml").read_text())["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    local = manager["local_reply_config"]
    found: dict[Reason, set[Answer]] = defaultdict(set)
    formats = [(mapper["filter"], mapper["body_format_override"]) for mapper in local["mappers"]]
    for condition, form in [*formats, ({}, local["body_format"])]:
        if "json_format" not in form:
            continue
        body: dict[str, Any] = form["json_format"]
        code = next(code.name for code in grpc.StatusCode if code.value[0] == body["code"])
        comparison = condition.get("status_code_filter", {}).get("comparison", {"op": "", "value": {}})
        http = comparison["value"].get("default_value") if comparison["op"] == "EQ" else None
        found[Reason(body["details"][0]["reason"])].add(
            Answer(code, http or {"UNAVAILABLE": 503, "INTERNAL": 500}[code])
        )
    return found


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_comes_with_the_codes_that_the_catalogue_says(reason: Reason) -> None:
    entry = CATALOGUE[reason]
    raised, of_events = _raised()
    wanted = raised.get(reason, set()) | _bridges().get(reason, set())
    assert entry.of_an_event == (reason in of_events)
    if entry.of_an_event and Answer("INVALID_ARGUMENT", 400) in entry.answers:
        wanted.add(Answer("INVALID_ARGUMENT", 400))  # a single event's problem is its call's error
    assert set(entry.answers) == wanted
    assert entry.answers or entry.of_an_event
    assert entry.means.endswith(".")
    assert entry.do.endswith(".")


def test_the_catalogue_is_complete() -> None:
    assert CATALOGUE.keys() == set(Reason)
    assert all(reason == reason.name for reason in Reason)
    for problem in (settle.CONFLICT, settle.ABORTED, settle.QUOTA_EXCEEDED):
        assert problem.retryable == CATALOGUE[problem.reason].retry


def test_what_may_succeed_later_says_so() -> None:
    """A class of error has a time to retry if, and only if, a retry can help for its reason."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, HeadgateError) and kind.retry_after is not None:
            assert CATALOGUE[kind.reason].retry, kind


def test_no_reason_and_no_break_is_written_as_a_literal() -> None:
    """A word is written once, where it is defined; all other code uses the member. A vendor has two of our words for
    breaks.
    """
    reasons, breaks = set(map(str, Reason)) - _CODES, set(map(str, BreakType))
    literals = [
        f"{name}:{node.lineno}: {node.value}"
        for name, tree in _trees()
        if name not in _DEFINITIONS
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and node.value in (reasons if name.startswith("receivers/") else reasons | breaks)
    ]
    assert literals == []


def test_the_page_shows_the_catalogue() -> None:
    """`python -m tests.support.reasons_page` writes it again."""
    assert PAGE.read_text() == page()
