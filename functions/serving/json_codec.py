"""JSON on CPython's own C scanner and encoder, without the `json` package around them.

`import json` imports `re` for its pure-Python fallback, 6 ms of a cold start that nothing here would use. What is read
and written is the same: the tests hold both functions against `json`.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["dumps", "loads"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Windows' tools put it before UTF-8, and `json.loads` skips it too
_WHITESPACE = " \t\n\r"


class _Scanner:
    """The options that `_json.make_scanner` reads off its argument: those of `json.loads`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__


_make_scanner: Any = _json.make_scanner  # typeshed knows the class, not what its constructor takes
_scan = _make_scanner(_Scanner)


def _refuse(value: object) -> None:
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


# No check for circular references: they end in a RecursionError. NaN and infinities are written as bare tokens.
_chunks = _json.make_encoder(None, _refuse, _json.encode_basestring_ascii, None, ":", ",", False, False, True)


def loads(document: str | bytes | bytearray) -> Any:
    """Read one JSON value.

    Args:
        document: text, or its UTF-8 bytes, with a byte order mark or without.

    Raises:
        ValueError: not JSON, or not UTF-8; the message says where.
        RecursionError: nested too deeply for the C stack.
    """
    if isinstance(document, str):
        text = document
    else:
        text = str(document[3:] if document.startswith(_BYTE_ORDER_MARK) else document, "utf-8")
    start = len(text) - len(text.lstrip(_WHITESPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration as error:
        raise ValueError(f"Expecting value: char {error.value}") from None
    except SystemError:  # CPython 3.11's scanner says what is wrong only where `json` has been imported
        from json import loads as explain

        return explain(text)
    if end != len(text) and text[end:].strip(_WHITESPACE):
        raise ValueError(f"Extra data: char {end}")
    return value


def dumps(value: Any) -> str:
    """Write a value as compact JSON in ASCII.

    Raises:
        TypeError: it holds something that is no JSON.
        RecursionError: it holds itself, or is nested too deeply.
    """
    return "".join(_chunks(value, 0))
