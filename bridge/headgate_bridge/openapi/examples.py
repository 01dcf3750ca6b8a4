"""Example requests: those of a file, which tests send to the running service, or else the examples of the fields."""

from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

_JSON = "application/json"
_HERE = Path(__file__).parent


class Examples:
    """Requests that work, and some of their answers, by operation."""

    def __init__(self, path: Path = _HERE / "examples.yaml"):
        self._operations: dict[str, dict[str, Json]] = yaml.safe_load(path.read_text(encoding="utf-8"))
        self._used: set[str] = set()

    def of(self, operation: str, media_type: str, schema: Json, components: Json) -> Json:
        """Return the examples of an operation's requests, whose body has this media type and schema."""
        self._used.add(operation)
        if operation not in self._operations and media_type == _JSON:
            return {"smallest": {"summary": "What is required", "value": sample(schema, components)}}
        return {
            name: {"summary": example["summary"], "value": example["request"]}
            for name, example in self._operations.get(operation, {}).items()
            if example.get("type", _JSON) == media_type
        }

    def answers_of(self, operation: str) -> Json:
        """Return the examples of an operation's answers. They have the names of their requests."""
        return {
            name: {"summary": example["summary"], "value": example["answer"]}
            for name, example in self._operations.get(operation, {}).items()
            if "answer" in example
        }

    def check(self) -> None:
        """Raise `ValueError` if an example belongs to no operation with a body."""
        if unknown := self._operations.keys() - self._used:
            raise ValueError(f"examples.yaml has operations that do not exist: {', '.join(sorted(unknown))}")


def sample(schema: Json, components: Json) -> Any:
    """Return a value for a schema: the examples of the members that it requires, or the simplest values."""
    if "$ref" in schema:
        return sample(components[schema["$ref"].rpartition("/")[2]], components)
    if "oneOf" in schema and "properties" not in schema:
        return sample(schema["oneOf"][0], components)
    if "examples" in schema:
        return schema["examples"][0]
    members = schema.get("properties", {})
    required = [*schema.get("required", ()), *schema.get("oneOf", [{}])[0].get("required", ())]
    if schema.get("type") == "array":
        return [sample(schema["items"], components)]
    simplest: dict[Any, Any] = {"string": "text", "integer": 1, "number": 1, "boolean": True}
    return simplest.get(schema.get("type"), {name: sample(members[name], components) for name in required})
