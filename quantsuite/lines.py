"""A result as a line of JSON: what is for people first, the items last and packed."""

from __future__ import annotations

from typing import Any

import msgspec

from quantsuite.columns import pack, unpack
from quantsuite.metrics import named_metric
from quantsuite.records import Result


def encode_line(result: Result) -> bytes:
    """A result as JSON without its line's end."""
    fields = msgspec.to_builtins(result)
    if items := fields.get("items"):
        fields["items"] = {name: pack(column) for name, column in items.items()}
    return msgspec.json.encode(fields)


def decode_line(line: bytes | str) -> Result:
    """The inverse of :func:`encode_line`; fields that it does not know are left out of account.

    Raises:
        ValueError: if it is no JSON, or no result.
        MetricError: if its metric is not installed.
    """
    try:
        return result_of(msgspec.json.decode(line))
    except (OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error


def result_of(fields: Any) -> Result:
    """The result of decoded JSON.

    Raises:
        ValueError: if it is none.
        OverflowError: if an integer is beyond every float.
    """
    if isinstance(fields, dict) and isinstance(items := fields.get("items"), dict):
        fields = {**fields, "items": _items(fields, items)}
    return msgspec.convert(fields, Result)


def _items(fields: dict[str, Any], items: dict[str, Any]) -> Any:
    """The items, of the type that their task's metric takes."""
    name = msgspec.convert(fields, _Measured).task.metric
    columns = {each: unpack(column) for each, column in items.items()}
    kind = named_metric(name).items
    try:
        return msgspec.convert(columns, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"items of {name}: {error}") from error


class _Task(msgspec.Struct):
    metric: str


class _Measured(msgspec.Struct):
    task: _Task
