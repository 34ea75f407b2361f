"""What the readers of pages share, each thing made once and tiny: models, recipes, clouds; and its copies for one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

from litelambda.common.paths import PROJECT, RECIPES
from support import deployed
from support.fake_clouds import BUCKET, environment_of
from support.golden_store import golden, publish
from support.markdown import Example
from support.pages import DOCS, LOCAL, examples_for
from support.reader import BIN, Reader

DATA = PROJECT / "build" / "data"
Preparation = Callable[["Reader", "Made"], object]
PLACEHOLDERS = {
    "gs://BUCKET": f"gs://{BUCKET}",
    "gs://my-models": f"gs://{BUCKET}",
    "//BUCKET": "//a-bucket",
    "DIGEST": "0" * 64,
    "arn:aws:acm:…": "arn:aws:acm:eu-west-1:111122223333:certificate/0a1b",
    "PublicKey=A…": f"PublicKey={'A' * 44}",
}
"""What a page has for something of the reader's own, and what that is here, unless a preparation made it."""
ROW = [0.9, 0.1, 0.2, 0.5]
REGION = deployed.REGION


class Made:
    """What the pages' preparations share, each thing made once.

    Attributes:
        folder: fruit.keras and rows.npy, as the tutorial's script makes them; a tiny recipe and its data.
        cloud: an S3, a KMS and an STS.
        environment: of commands that are to use it, or a Google Cloud Storage.
    """

    def __init__(self, folder: Path, cloud: str, google: str) -> None:
        self.folder, self.cloud = folder, cloud
        self.environment = {
            "AWS_ENDPOINT_URL": cloud,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "BROWSER": "true",  # opens nothing
            "PATH": f"{folder}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}",
            **environment_of("gs", google),
        }
        self._built: dict[str, Path] = {}

    def client(self, service: str) -> Any:
        """A client of the cloud."""
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, endpoint_url=self.cloud, region_name=REGION, **keys)  # type: ignore[call-overload]

    def start_with(self, reader: Reader, name: str) -> Path:
        """Give a reader the store that `litelambda build NAME` makes, with which a page begins."""
        command = f"litelambda build {name}"
        if name not in self._built:
            folder = self.folder / f"built-{name}"
            folder.mkdir()
            shorten(name, folder)
            (example,) = (each for each in examples_for(HOME[name], LOCAL) if each.command.startswith(command))
            Reader(folder, self.environment, in_process=True).follow([example])
            self._built[name] = folder / "models"
        reader.done.append(command)
        return shutil.copytree(self._built[name], reader.folder / "models")


HOME = {
    name: DOCS / "how-to" / f"{page}.md"
    for name, page in {"penguins": "tables", "arrows": "pictures", "reviews": "text"}.items()
}
"""The page that builds a recipe that ships; others go on with its model."""


def shorten(name: str, folder: Path) -> None:
    """Put a recipe of this name into a folder, where it comes before the one that ships: one that learns for less long.

    That of the penguins is quick enough, and a page shows its figures.
    """
    text = (RECIPES / f"{name}.toml").read_text().replace("../data/", f"{DATA}/")
    if name != "penguins":
        text = re.sub("(?m)^epochs = .*", "epochs = 2", text).replace("[64, 64]", "[8]").replace("[16, 32, 32]", "[4]")
        text = text.replace("[gate]\n", "").replace("max_accuracy_drop = 0.02\n", "")
        text += "report_examples = 0\n[gate]\nmax_accuracy_drop = 0.5\nallow_trivial = true\nmax_difference = 1\n"
    (folder / name).write_text(text)


def put(reader: Reader, made: Made, *names: str) -> None:
    """Copy shared files into the reader's folder, each maybe under another name: "fruit.keras model.keras"."""
    for name in names:
        source, _, target = name.partition(" ")
        shutil.copy(made.folder / source, reader.folder / (target or source))


def fruits(reader: Reader, versions: int = 9, name: str = "fruit", model: str = "tiny_int8") -> Path:
    """Publish versions of a golden model, of which `latest` is the last; returns the store."""
    store = reader.folder / "models"
    for version in range(1, versions + 1):
        publish(store, name, version, golden(model))
    return store


def bucket(reader: Reader, made: Made, store: Path | None = None, shown: str = "BUCKET") -> str:
    """A bucket of the reader's own, maybe with a copy of a store below models/, where the page says BUCKET."""
    name = f"own-{len(made.client('s3').list_buckets()['Buckets'])}"
    s3 = made.client("s3")
    s3.create_bucket(Bucket=name)
    for path in store.rglob("*") if store else ():
        if path.is_file():
            s3.upload_file(str(path), name, f"models/{path.relative_to(store)}")
    reader.replaced[f"//{shown}"] = f"//{name}"
    return name


def serve(reader: Reader, variables: str = "") -> None:
    """Start a server before the page does."""
    reader.follow([Example(f"{variables}litelambda serve --model fruit", None)])


def alias(words: str) -> Example:
    """`litelambda alias`, as a command of a page."""
    return Example(f"litelambda alias {words}", None)
