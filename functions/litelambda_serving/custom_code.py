"""The function's own code: a module of its owner's, which runs before and after the model.

    def preprocess(rows):       # what the request has as `instances`; returns as many rows for the model
    def postprocess(outputs):   # by output, a value for each row; returns an answer for each row

Either may be missing. A row must not depend on the others: batch scoring calls both with many rows, and once more row
by row where one of them is refused. What they raise is the client's fault if it is a `RequestError` of
`litelambda_serving.errors`, and the code's own if it is anything else.

The module is a file of the deployment package, never one of the store. Loaded by INIT where there is one.
"""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader

from litelambda_serving.errors import CustomCodeError, RequestError, UnsupportedError
from litelambda_serving.json_codec import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["MODULE", "CustomCode", "values_of"]

MODULE = "custom_code"
"""Name of the module, and of its file in the deployment package."""


class CustomCode:
    """A module with `preprocess`, `postprocess` or both.

    Attributes:
        has_preprocess: whether it has the first.
        has_postprocess: whether it has the second.
    """

    def __init__(self, path: str) -> None:
        """Import the module.

        Args:
            path: of its file.

        Raises:
            CustomCodeError: it cannot be imported, or has neither function.
        """
        self._path = path
        loader = SourceFileLoader(MODULE, path)
        module = type(sys)(MODULE)
        module.__file__ = path
        sys.modules[MODULE] = module  # where dataclasses and pickle look for it
        try:
            loader.exec_module(module)
        except Exception as error:
            raise _failed(f"{path} cannot be imported") from error
        self._preprocess = getattr(module, "preprocess", None)
        self._postprocess = getattr(module, "postprocess", None)
        self.has_preprocess = self._preprocess is not None
        self.has_postprocess = self._postprocess is not None
        if not (self.has_preprocess or self.has_postprocess):
            raise CustomCodeError(f"{path} defines neither preprocess(rows) nor postprocess(outputs)")

    def __reduce__(self) -> tuple[type[CustomCode], tuple[str]]:
        return CustomCode, (self._path,)

    @staticmethod
    def rows_alone(verb: str = "predict") -> UnsupportedError:
        """What to raise for a request that has no rows of JSON."""
        asked = "explain" if verb == "explain" else "predict"
        return UnsupportedError(
            f"this function has code of its own, for rows of JSON alone: use /v1/models/NAME:{asked} with 'instances'"
        )

    def prepare(self, rows: list[Any]) -> list[Any]:
        """What `preprocess` makes of the rows; the rows themselves where there is none.

        Raises:
            RequestError: it refused them.
            CustomCodeError: it failed, or did not return as many rows.
        """
        return _call(self._preprocess, rows, len(rows)) if self.has_preprocess else rows

    def predictions(self, texts: Mapping[str, Sequence[str]]) -> str:
        """The body of an answer in the row format.

        Args:
            texts: by output, the JSON of each row in a plain answer.

        Raises:
            RequestError, CustomCodeError: see `prepare`.
        """
        columns = {name: values_of(rows) for name, rows in texts.items()}
        return dumps({"predictions": self.answers(columns, len(next(iter(columns.values()))))})

    def answers(self, outputs: Mapping[str, list[Any]], count: int) -> list[Any]:
        """What `postprocess` answers for each of `count` rows.

        Args:
            outputs: by name, the value of each row.
            count: of rows.

        Raises:
            RequestError, CustomCodeError: see `prepare`.
        """
        return _call(self._postprocess, outputs, count)


def values_of(texts: Sequence[str]) -> list[Any]:
    """The values of an output's rows as a plain answer has them, from the JSON of each."""
    values: list[Any] = loads(f"[{','.join(texts)}]")
    return values


def _call(function: Any, argument: Any, count: int) -> list[Any]:
    try:
        returned: Any = function(argument)
    except RequestError:
        raise
    except Exception as error:
        raise _failed(f"{function.__name__} failed") from error
    if type(returned) is not list or len(returned) != count:
        got = f"a list of {len(returned)}" if type(returned) is list else type(returned).__name__
        raise CustomCodeError(
            f"{function.__name__} returned {got}: expected a list with an entry for each of {count} rows"
        )
    return returned


def _failed(what: str) -> CustomCodeError:
    """What happened, with the traceback of the exception that is being handled, for the log."""
    from traceback import format_exc

    return CustomCodeError(f"{what}\n{format_exc().rstrip()}")
