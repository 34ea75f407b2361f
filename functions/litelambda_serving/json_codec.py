"""JSON on CPython's own C scanner and encoder, without the `json` package around them.

`import json` imports `re` for its pure-Python fallback: 6 ms of a cold start for code that is not used here. What is
read and written is the same: the tests compare both functions with `json`.
"""

from __future__ import annotations

import _json
import struct
from math import floor, frexp, isfinite, log10, prod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from typing_extensions import Buffer

    Rule = tuple[float, float, float, float, float, str]

__all__ = ["UnreadNumbers", "dumps", "loads", "nest_texts", "number_texts", "pays_native"]

_MIN_NATIVE_BYTES = 1024  # below it Python is as fast
_LOAD_BYTES = 16_384  # Python reads so much in the time in which `native` loads, 0.6 ms
_done_bytes = 0  # in Python, of what `native` could have done

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Windows' tools put it before UTF-8, and `json.loads` skips it too
_WHITESPACE = " \t\n\r"


_SMALLEST_NORMAL = 2.0**-126  # of float32: below it, there are fewer digits
_MAX_KNOWN, _MAX_RULES = 4096, 8192
_PART = 17  # bits of a float32 that its rule does not depend on
_MARGIN = 1e-6  # of rests near a limit: a thousand times their rounding error
_ALL_RARE = (1.0, -1.0, 2.0, 2.0, 2.0, "")
_ZERO = (1.0, 0.0, 2.0, 2.0, 2.0, "")
_known: dict[int, str] = {}  # texts by the values' bits: an output of int8 codes has 256 values, again and again


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


def pays_native(num_bytes: int) -> bool:
    """Whether to read or write so much JSON in C.

    To load `native` pays for a large document, and once small ones have come that make up for a large one: what an
    environment does in its whole life cannot be known before, but this way costs at most twice the best.
    """
    global _done_bytes  # noqa: PLW0603 - of the environment, as what is loaded
    if num_bytes < _MIN_NATIVE_BYTES:
        return False
    _done_bytes += num_bytes
    return _done_bytes >= _LOAD_BYTES


class UnreadNumbers:
    """Nested numbers of a document, still as text: who knows their type and shape reads them. See `native`.

    Its length is that of the outermost list, and at least one.

    Attributes:
        is_flat: whether its first entry is a number, not a list.
    """

    __slots__ = ("is_flat",)

    is_flat: bool

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, dtype: str, shape: Sequence[int]) -> bytearray | None:
        """The values as a dtype, row-major; None where they do not fit it or the shape, or cannot be read so."""
        raise NotImplementedError

    def scale(self, data: bytearray, scale: Sequence[float], offset: Sequence[float]) -> bool:
        """Multiply float32 values that were read, and add to them, each step rounded to float32.

        Args:
            data: the values, row-major.
            scale: one for all values, or one for each of the last dimension.
            offset: as `scale`.

        Returns:
            Whether all results are finite; if not, `data` is of no use.
        """
        raise NotImplementedError

    def to_list(self) -> Any:
        """The nested lists that JSON has there."""
        raise NotImplementedError


def loads(document: str | bytes | bytearray) -> Any:
    """Read one JSON value.

    Args:
        document: text, or its UTF-8 bytes, with a byte order mark or without.

    Raises:
        ValueError: not JSON, or not UTF-8; the message says where.
        RecursionError: nested too deeply for the C stack.

    >>> loads(b'{"instances": [[1.5, true, null]]}')
    {'instances': [[1.5, True, None]]}
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
        TypeError: it holds something that JSON cannot express.
        RecursionError: it holds itself, or is nested too deeply.

    >>> dumps({"predictions": [[0.5, 1]], "model": "mnist"})
    '{"predictions":[[0.5,1]],"model":"mnist"}'
    """
    return "".join(_chunks(value, 0))


def number_texts(data: Buffer, format: str) -> list[str]:  # noqa: A002 - struct's word
    """Write the numbers or booleans of a tensor, row-major.

    Args:
        data: their bytes, little-endian.
        format: their type's code in the `struct` module. Half floats ("e") are written as the float32 that they are.

    >>> number_texts(struct.pack("<3f", 0.1, 2.0, float("nan")), "f")
    ['0.1', '2.0', 'NaN']
    """
    if format == "f":
        return _float32_texts(data)
    count = memoryview(data).nbytes // struct.calcsize(format)
    values = struct.unpack(f"<{count}{format}", data)
    if format == "e":
        return _float32_texts(struct.pack(f"<{count}f", *values))
    return dumps(values)[1:-1].split(",") if values else []


def nest_texts(texts: list[str], shape: Sequence[int]) -> list[str]:
    """Nest the texts of an array's values: one text for each entry of its first dimension.

    >>> nest_texts(["1", "2", "3", "4"], (2, 2))
    ['[1,2]', '[3,4]']
    """
    for axis in range(len(shape) - 1, 0, -1):
        size = shape[axis]
        texts = [f"[{','.join(texts[index * size : (index + 1) * size])}]" for index in range(prod(shape[:axis]))]
    return texts


def _float32_texts(data: Buffer) -> list[str]:
    """Write float32 values, row-major, each with the fewest digits that give it back: 0.0003 for 0.0003000000142492354.

    NaN and infinities are the bare tokens that `dumps` writes. A few powers of two get a digit more than they need.

    Source: Steele and White 1990, How to print floating-point numbers accurately.
    """
    count = memoryview(data).nbytes // 4
    bits = struct.unpack(f"<{count}I", data)
    texts = list(map(_known.get, bits))
    if None not in texts:
        return texts  # type: ignore[return-value] # as was just seen
    values = struct.unpack(f"<{count}f", data)
    written = (",".join(_formats(values, bits)) % values).split(",")
    if 0.0 in values or not (max(values) < 1.0 and min(values) > -1.0):  # an integer keeps its point: it is a float
        written = [f"{text}.0" if text.lstrip("-").isdigit() else text for text in written]
    if len(_known) + len(written) <= _MAX_KNOWN:
        _known.update(zip(bits, written, strict=True))
    return written


def _formats(values: Sequence[float], bits: Sequence[int]) -> list[str]:
    """The format of each value.

    Of the decimals with seven digits the nearest is the value itself, to a reader, if it is less than half the distance
    between two float32 away; else of those with eight, or nine. How far away it is, is what the value's product with a
    power of ten leaves of an integer. `%g` drops zeros at the end, so that seven stands for fewer, too.
    """
    return [
        (eight or _eight_or_nine(value, factor))
        if more_low < (rest := value * factor % 1.0) < more_high
        else ("%.7g" if rest <= seven_low or rest >= seven_high else _rare_format(value))
        for value, (factor, seven_low, seven_high, more_low, more_high, eight) in zip(
            values, map(_rules.__getitem__, [each >> _PART for each in bits]), strict=True
        )
    ]


def _eight_or_nine(value: float, factor: float) -> str:
    """The format of a value for which seven digits are too few."""
    mantissa, exponent = frexp(value)
    near, rest = 2.0 ** (exponent - 25) * abs(factor) * 10.0, value * factor * 10.0 % 1.0
    if abs(mantissa) == 0.5 or min(abs(rest - near), abs(1.0 - rest - near)) < _MARGIN:
        return _rare_format(value)
    return "%.9g" if near < rest < 1.0 - near else "%.8g"


def _rare_format(value: float) -> str:
    """The format of a value that is too near to a limit for arithmetic, or has nine digits, or six at most."""
    if not isfinite(value):
        return "%.0s" + dumps(value)  # "%.0s" writes nothing
    packed, least = struct.pack("f", value), 6 if abs(value) >= _SMALLEST_NORMAL else 1
    formats = (f"%.{digits}g" for digits in range(least, 9))
    return next((each for each in formats if struct.pack("f", float(each % value)) == packed), "%.9g")


class _Rules(dict[int, "Rule"]):
    """By a float32's first bits: its sign, its exponent, and which 64th it lies in of the values with that exponent.

    A rule is the factor that makes an integer of a decimal with seven digits, the largest rest of which and the
    smallest from which on seven are enough, the rests between which they are not, and the format where eight are
    enough then; so far from the limits that what rounding does to the product makes no difference.
    """

    def __missing__(self, part: int) -> Rule:
        exponent, sign = part >> 23 - _PART & 0xFF, -1.0 if part >> 31 - _PART else 1.0
        # The successor of the last part, which is among the NaNs, has one bit too many.
        bits = (part << _PART, (part + 1 << _PART) & 0xFFFFFFFF)
        first, last = map(abs, struct.unpack("2f", struct.pack("2I", *bits)))
        rule = _ALL_RARE if first else _ZERO
        if exponent not in (0, 0xFF) and last <= 10.0 ** (floor(log10(first)) + 1):
            factor = 10.0 ** (6 - floor(log10(first)))
            rule = _rule(factor, 2.0 ** (exponent - 151), 2.0 ** (exponent - 127), sign)
        if len(self) >= _MAX_RULES:
            self.clear()
        self[part] = rule
        return rule


def _rule(factor: float, half_step: float, smallest: float, sign: float) -> Rule:
    near = half_step * factor
    if near > 0.5:
        return _ALL_RARE
    low, more = near - _MARGIN, near + _MARGIN
    # Below a power of two the next float32 is half as far away: where that matters, it is one of the rare.
    rest = smallest * factor % 1.0
    if near / 2 - _MARGIN < rest <= low:
        low = rest - _MARGIN
    elif near < 0.1 and more < rest < 1.0 - more:
        more = rest + _MARGIN
    return sign * factor, low, 1.0 - near + _MARGIN, more, 1.0 - near - _MARGIN, "%.8g" if near >= 0.05 else ""


_rules = _Rules()
