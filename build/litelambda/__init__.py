"""The offline toolchain: train, compress, quantize, verify and publish; serve, score, package and measure.

    from litelambda import build, load_recipe, serve

    build(load_recipe("recipe.toml"), "models")
    serve("models")

What `__all__` names is the public interface. Each name is imported when it is first used: TensorFlow takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from litelambda_serving import __version__

if TYPE_CHECKING:
    from litelambda.client import Client, ServiceError
    from litelambda.commands.build import build
    from litelambda.commands.import_model import import_model
    from litelambda.commands.package import PackageResult, package
    from litelambda.commands.results import BuildResult, ImportResult
    from litelambda.commands.score import ScoreResult, score
    from litelambda.commands.serve import serve
    from litelambda.common.errors import LitelambdaError
    from litelambda.recipe.load import Recipe, load_recipe
    from litelambda.store.artifact_store import FetchedModel, Store

__all__ = [
    "BuildResult",
    "Client",
    "FetchedModel",
    "ImportResult",
    "LitelambdaError",
    "PackageResult",
    "Recipe",
    "ScoreResult",
    "ServiceError",
    "Store",
    "__version__",
    "build",
    "import_model",
    "load_recipe",
    "package",
    "score",
    "serve",
]

_MODULES = {
    "BuildResult": "commands.results",
    "Client": "client",
    "FetchedModel": "store.artifact_store",
    "ImportResult": "commands.results",
    "LitelambdaError": "common.errors",
    "PackageResult": "commands.package",
    "Recipe": "recipe.load",
    "ScoreResult": "commands.score",
    "ServiceError": "client",
    "Store": "store.artifact_store",
    "build": "commands.build",
    "import_model": "commands.import_model",
    "load_recipe": "recipe.load",
    "package": "commands.package",
    "score": "commands.score",
    "serve": "commands.serve",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
