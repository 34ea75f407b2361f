"""A build that imports: the model that a recipe names, instead of one that it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from litelambda.commands.import_model import import_model
from litelambda.recipe.sections import resolve_path

if TYPE_CHECKING:
    from litelambda.commands.results import ImportResult
    from litelambda.common.progress import Reporter
    from litelambda.recipe.imports import ImportRecipe
    from litelambda.store.signing import Signer

__all__ = ["import_by_recipe"]


def import_by_recipe(
    recipe: ImportRecipe, folder: Path, store: str | Path, reporter: Reporter, *, signer: Signer | None = None
) -> ImportResult:
    """Run `import_model` as a recipe says.

    Args:
        recipe: from `load_any_recipe`.
        folder: the recipe's, which its paths are relative to.
        store: a folder, or `s3://bucket/prefix`.
        reporter: told about every stage.
        signer: signs the version; None leaves it unsigned.

    Raises:
        LitelambdaError: as `import_model`.
    """
    source, encrypt = recipe.source, recipe.publish.encrypt

    def found(path: str | None) -> Path | None:
        return None if path is None else resolve_path(path, folder)

    return import_model(
        resolve_path(source.path, folder),
        recipe.publish.name,
        store,
        representative=found(source.representative),
        labels=found(source.labels),
        preprocessing=None if source.preprocessing is None else json.dumps(source.preprocessing),
        tokenizer=found(source.tokenizer),
        max_difference=source.max_difference,
        accept_loss=source.accept_loss,
        signer=signer,
        encrypt=encrypt if encrypt is None or encrypt.startswith("arn:") else str(found(encrypt)),
        explain=source.explain,
        reporter=reporter,
    )
