"""The deployed function in this process, for `serve` and `predict`."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from litelambda.common.aws import export_credentials
from litelambda.common.errors import UsageError
from litelambda.common.paths import FUNCTIONS
from litelambda.store.checks import check_store_exists, choices_named

if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[dict[str, Any], "LambdaContext"], dict[str, Any]]

__all__ = ["LambdaContext", "custom_code_path", "load_function", "load_handler"]


@dataclass(frozen=True)
class LambdaContext:
    """What a handler may read of its invocation."""

    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    function_name: str = "local"
    memory_limit_in_mb: str = "512"
    invoked_function_arn: str = "arn:aws:lambda:local:000000000000:function:local"


def load_handler(url: str, model: str = "", *, version: str = "", code: str | Path | None = None) -> Handler:
    """The handler of a function that logs errors alone; see `load_function`."""
    handler: Handler = load_function(url, model, version=version, code=code, log_level="ERROR").handler
    return handler


def load_function(
    url: str, model: str = "", *, version: str = "", code: str | Path | None = None, log_level: str = "INFO"
) -> ModuleType:
    """INIT, as Lambda does it: the environment first, then the import.

    Args:
        url: of the store.
        model: loaded by INIT; "" loads each model on its first request.
        version: number or alias of that model; "" for its latest.
        code: file with the function's own code; None for none.
        log_level: the function's LOG_LEVEL.

    Raises:
        UsageError: the store or the file does not exist.
        ServingError: the model or the code cannot be loaded.
    """
    check_store_exists(url)
    environment = {
        "MODEL_STORE": url,
        "MODEL_NAME": model,
        "MODEL_VERSION": version,
        "CUSTOM_CODE": "" if code is None else str(custom_code_path(code)),
        "PAGE": "on",
        "LOG_LEVEL": log_level,
        "METRICS_NAMESPACE": "",
    }
    export_credentials(url)
    os.environ.update(environment)
    separator = ":" if version.isdecimal() else "@"
    with choices_named(url, f"{model}{separator}{version}" if version else model):
        # From its file: a wheel has no top-level module `predict`.
        module = ModuleType("predict")
        SourceFileLoader(module.__name__, str(FUNCTIONS / "predict.py")).exec_module(module)
    return module


def custom_code_path(code: str | Path) -> Path:
    """The absolute path of a file with the function's own code.

    Raises:
        UsageError: it is not a Python file.
    """
    path = Path(code).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"--code {code}: expected a Python file (.py) with preprocess, postprocess or both")
    return path
