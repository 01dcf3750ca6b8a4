"""Which column of a record becomes which field of an event."""

from typing import Any

import pytest

from headgate_server.cli.importing.columns import Columns, pairs_of, types_of
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Problem

NUMBERS = b'{"properties":{"n":{"type":"integer"},"x":{"type":["number","null"]},"paid":{"type":"boolean"}}}'


def _row(columns: Columns, row: dict[str, str]) -> Any:
    return columns.of(list(row), "file").event_of_row(row)


def test_columns_with_the_names_of_fields_are_these_fields() -> None:
    row = {"type": "t", "source": "", "idempotency_key": "k", "a": "1", "b": ""}
    assert _row(Columns(), row) == {"type": "t", "idempotency_key": "k", "data": {"a": "1"}}


def test_a_map_and_chosen_columns_of_data() -> None:
    columns = Columns(fields={"type": "name"}, data=["a", "type"], constants={"source": "shop"})
    row = {"name": "t", "type": "kind", "a": "1", "b": "2"}
    assert _row(columns, row) == {"type": "t", "source": "shop", "data": {"a": "1", "type": "kind"}}


def test_a_records_own_value_comes_before_a_constant() -> None:
    columns = Columns(constants={"type": "other", "source": "shop"})
    assert _row(columns, {"type": "t"}) == {"type": "t", "source": "shop"}
    assert columns.event_of_object({"type": "t"}) == {"type": "t", "source": "shop"}


def test_cells_have_the_types_of_the_schema() -> None:
    columns = Columns(types=types_of(NUMBERS, "schema"))
    assert _row(columns, {"n": "-7", "x": "49.90", "paid": "True", "note": "007"}) == {
        "data": {"n": -7, "x": 49.9, "paid": True, "note": "007"}
    }
    assert _row(columns, {"n": "", "x": "null", "paid": ""}) == {"data": {"x": None}}
    assert _row(Columns(types={"a": frozenset({"string"})}), {"a": ""}) == {"data": {"a": ""}}


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("n", "1.5", "WRONG_TYPE"),
        ("n", "1e2", "WRONG_TYPE"),
        ("n", "true", "WRONG_TYPE"),
        ("x", "many", "WRONG_TYPE"),
        ("x", "01", "WRONG_TYPE"),
        ("paid", "1", "WRONG_TYPE"),
    ],
)
def test_cells_of_other_types(column: str, cell: str, reason: str) -> None:
    row = {"n": "1", "x": "1", "paid": "true"} | {column: cell}
    problem = _row(Columns(types=types_of(NUMBERS, "schema")), row)
    assert isinstance(problem, Problem)
    assert (problem.field, problem.reason) == (f"data.{column}", reason)


def test_a_column_of_whole_data() -> None:
    assert _row(Columns(), {"type": "t", "data": '{"a":[1]}'}) == {"type": "t", "data": {"a": [1]}}
    problem = _row(Columns(), {"type": "t", "data": "[1]"})
    assert isinstance(problem, Problem)
    assert problem.field == "data"


def test_an_object_is_an_event_or_a_record_of_members() -> None:
    record = {"name": "t", "a": 1, "b": {"c": 2}, "source": "s"}
    assert Columns().event_of_object(record) is not None
    assert Columns().event_of_object({"type": "t"}) == {"type": "t"}
    assert Columns(fields={"type": "name"}).event_of_object(record) == {
        "type": "t",
        "source": "s",
        "data": {"a": 1, "b": {"c": 2}},
    }
    assert Columns(fields={"type": "name"}, data=["b", "gone"]).event_of_object(record) == {
        "type": "t",
        "source": "s",
        "data": {"b": {"c": 2}},
    }
    assert Columns(fields={"type": "name"}).event_of_object([1]) == [1]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (Columns(fields={"type": "kind"}), "has no column 'kind'; it has 'a', 'data'"),
        (Columns(data=["b"]), "has no column 'b'"),
        (Columns(types={"b": frozenset({"number"})}), "has no column 'b'"),
        (Columns(), "the column 'data' is the data, and so are 'a'"),
    ],
)
def test_columns_that_the_file_does_not_have(columns: Columns, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        columns.of(["a", "data"], "file")


@pytest.mark.parametrize("text", ["type", "=a", "type=", "kind=a"])
def test_maps_that_are_none(text: str) -> None:
    with pytest.raises(SetupError, match="is not FIELD=COLUMN"):
        pairs_of([text])


def test_a_field_with_two_columns() -> None:
    assert pairs_of(["type=a=b", "source=c"]) == {"type": "a=b", "source": "c"}
    with pytest.raises(SetupError, match="has two columns, 'a' and 'b'"):
        pairs_of(["type=a", "type=b"])


@pytest.mark.parametrize("schema", [b"", b"[]", b"{}", b'{"properties":[]}', b'{"properties":{"a":{"type":{}}}}x'])
def test_schemas_that_say_no_types(schema: bytes) -> None:
    with pytest.raises(SetupError, match="is not a JSON Schema of an object"):
        types_of(schema, "s.json")


def test_a_type_that_json_does_not_have() -> None:
    with pytest.raises(SetupError, match="the property 'a' has the unknown type 'date'"):
        types_of(b'{"properties":{"a":{"type":"date"}}}', "s.json")
