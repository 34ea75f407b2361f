"""What a user is told about a store, or a model in it, that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from litelambda.common.errors import UsageError
from litelambda.store.artifact_store import Store
from litelambda_serving.errors import ModelNotFoundError, ServingError
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.models import parse_reference
from litelambda_serving.store import split_store_url


def check_store_exists(url: str) -> None:
    """Refuse to read a store on this machine that does not exist; only publishing creates one.

    Raises:
        UsageError: its folder does not exist, or is a file.
        SettingsError: not a store URL.
    """
    scheme, _, path = split_store_url(url)
    if scheme == "file" and not (folder := Path(unquote(path))).is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"there is no store at {url}: {folder} {what}; `litelambda build` and `import` create one")


@contextmanager
def choices_named(url: str, reference: str) -> Iterator[None]:
    """Have an error about a model that is not in a store name those that are.

    Raises:
        ModelNotFoundError: in place of the block's own.
    """
    try:
        yield
    except ModelNotFoundError as error:
        try:
            choices = Store(url).describe(parse_reference(reference)[0])
        except (ServingError, JobError):
            raise error from None  # what could not be found has been said
        raise ModelNotFoundError(f"{error}; {choices}") from error
