"""Values for the columns of `events`, of their types or not: the compiled core writes a row as COPY takes it."""

ODD_VALUES = (
    None, 0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**70, True, 1.0, 1.5, float("nan"), b"",
    b"x" * 8, bytes(16), b"\xff" * 17, b"x" * 600_000, bytearray(16), memoryview(b"x"), "", "x", "é👍", "a\0b",
    "0" * 32, "x" * 600_000, "\ud800", [], (1,), {}, object,
)  # fmt: skip
"""Values for a column of `events`, of its type or not."""


def is_of(column: str, value: object) -> bool:
    """Whether a value can be in a column of a type, as the compiled core writes it."""
    match column:
        case "uuid":
            return isinstance(value, bytes) and len(value) == 16
        case "bigint":
            return value is None or (isinstance(value, int) and -(2**63) <= value < 2**63)
        case "text":
            return value is None or (isinstance(value, str) and "\ud800" not in value)
        case _:
            return value is None or isinstance(value, bytes)
