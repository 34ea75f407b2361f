"""What pages say is needed, made before their commands are run; by page, in the order of their names."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import tarfile
import zipfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from litelambda.common.paths import PROJECT
from support import deployed
from support.golden_store import GOLDEN, golden, publish, set_aliases
from support.handler_client import capture, load_module, send
from support.markdown import blocks_of, read_blocks
from support.page_supplies import DATA, ROW, Made, Preparation, alias, bucket, fruits, put, serve
from support.pages import DOCS, TUTORIAL, examples_for
from support.reader import PORT, Reader


def prepare_access(reader: Reader, made: Made) -> None:
    """The policy that the page shows, and a server in place of an API with tokens, which the emulator has none of."""
    fruits(reader)
    serve(reader)
    reader.variables |= {"ApiUrl": f"http://localhost:{reader.replaced[PORT]}", "TOKEN": "a-token"}
    (policy,) = (text for text in blocks_of(DOCS / "how-to" / "access.md", "json") if '"rules"' in text)
    (reader.folder / "access.json").write_text(policy)


def prepare_audit(reader: Reader, made: Made) -> None:
    """A trail of several changes, and a copy of it on this machine."""
    name = bucket(reader, made, fruits(reader, 3))
    for version in (2, 1, 2, 3):
        reader.follow([alias(f"fruit latest {version} --store s3://BUCKET/models")])
    _, printed, said = reader.call(["audit", "--store", f"s3://{name}/models"])
    head = re.search(r"\b\d+:[0-9a-f]{64}\b", printed + said)
    assert head is not None, printed + said
    reader.replaced["412:9f2c…"] = head[0]
    for each in made.client("s3").list_objects_v2(Bucket=name, Prefix="models/audit/")["Contents"]:
        path = reader.folder / each["Key"].removeprefix("models/")
        path.parent.mkdir(parents=True, exist_ok=True)
        made.client("s3").download_file(name, each["Key"], str(path))


def prepare_batch_scoring(reader: Reader, made: Made) -> None:
    """A model of pictures of two by three pixels, with the alias stable."""
    store = reader.folder / "models"
    publish(store, "mnist_mlp", data=golden("image_2x3"))
    reader.follow([alias("mnist_mlp stable 1")])
    (reader.folder / "rows.jsonl").write_text(json.dumps([[[1, 2, 3]] * 3] * 2) + "\n")
    with zipfile.ZipFile(DATA / "arrows.zip") as archive:
        pictures = [name for name in archive.namelist() if name.endswith((".png", ".jpg"))][:3]
        (reader.folder / "images").mkdir()
        for name in pictures:
            (reader.folder / "images" / Path(name).name).write_bytes(archive.read(name))


def prepare_canary(reader: Reader, made: Made) -> None:
    """Nine versions, a recipe with test rows for them, and a store in another bucket."""
    store = fruits(reader)
    put(reader, made, "rows.csv", "rows.jsonl", "recipe.toml fruit.toml", "tiny.npz")
    bucket(reader, made, store, "other")


def prepare_capture(reader: Reader, made: Made) -> None:
    """Captured requests, and a server to replay them to."""
    capture(fruits(reader), "fruit", reader.folder / "captured", [ROW] * 5)


def prepare_reported(name: str) -> Preparation:
    """A version with a report, as a build made it, and a folder of files."""

    def prepare(reader: Reader, made: Made) -> None:
        store = made.start_with(reader, "penguins")
        (store / "penguins").rename(store / name)
        manifest = store / name / "1" / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"model": name}))
        set_aliases(store, {"latest": 1}, name)
        shutil.copytree(store, reader.folder / "pictures")

    return prepare


def prepare_cost(reader: Reader, made: Made) -> None:
    """The measurements that the page links to, and the prices that it shows."""
    shutil.copytree(DOCS / "examples" / "mnist_mlp", reader.folder, dirs_exist_ok=True)
    for block in read_blocks(DOCS / "how-to" / "cost.md"):
        if block.title:
            (reader.folder / block.title).write_text(block.text)


def prepare_custom_code(reader: Reader, made: Made) -> None:
    """The module that the page shows, and rows for it."""
    fruits(reader)
    (code, *_) = blocks_of(DOCS / "how-to" / "custom-code.md", "python")
    (reader.folder / "shop.py").write_text(code)
    row = {"id": 7, "weight_g": 120, "price": 2.5, "stock": 4}
    (reader.folder / "row.json").write_text(json.dumps(row))
    (reader.folder / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 3)


def penguins() -> list[dict[str, Any]]:
    """The rows of the data set, as callers send them."""
    with (DATA / "penguins.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return [
        {name: None if value in ("", "NA") else number(value) for name, value in row.items() if name != "species"}
        for row in rows
    ]


def number(text: str) -> float | str:
    """A cell as a number, if it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def prepare_drift(reader: Reader, made: Made) -> None:
    """The log and the capture of a function that was asked the rows of the data set, and a week of heavier birds."""
    store = prepare_penguins(reader, made)
    reader.follow([alias("penguins stable 1")])
    reader.codes["litelambda drift last-week.csv"] = 1
    rows = random.Random(1).sample(penguins(), 200)
    capture(store, "penguins", reader.folder / "captured", rows)
    module = load_module(store, "penguins", DRIFT_WINDOW="100")
    with redirect_stdout(StringIO()) as log:
        for row in rows:
            send(module.handler, "POST", "/v1/models/penguins:predict", {"instances": [row]})
            module.after_response()
    (reader.folder / "log.jsonl").write_text(log.getvalue())
    with (reader.folder / "last-week.csv").open("w") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"body_mass_g": (row["body_mass_g"] or 4000) + 1500} for row in rows)


def prepare_penguins(reader: Reader, made: Made) -> Path:
    """The model of the page on tables, and its data."""
    shutil.copy(DATA / "penguins.csv", reader.folder)
    return made.start_with(reader, "penguins")


def prepare_import(reader: Reader, made: Made) -> None:
    """A model in every form, and what other tools would fetch."""
    from litelambda.keras_tools.backend import load_keras

    put(reader, made, "fruit.keras model.keras", "rows.npy", "labels.txt")
    shutil.copy(GOLDEN / "tiny_int8.tflite", reader.folder / "model.tflite")
    with redirect_stdout(StringIO()):
        load_keras().saving.load_model(reader.folder / "model.keras").export(reader.folder / "saved_model")
    with tarfile.open(reader.folder / "model.tar.gz", "w:gz") as archive:
        archive.add(reader.folder / "saved_model", "export/Servo/1")
    make_exported_archive(reader.folder)
    (pixels,) = blocks_of(DOCS / "how-to" / "import.md", "json")
    (reader.folder / "pixels.json").write_text(pixels)
    reader.instead["mlflow"] = make_mlflow_folder
    reader.instead["hf"] = make_hugging_face_folder


def make_exported_archive(folder: Path) -> None:
    """What Teachable Machine exports: a model of pictures, and the names of its classes."""
    from litelambda.keras_tools.backend import load_keras

    keras = load_keras()
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.save(folder / "keras_model.h5")
    with zipfile.ZipFile(folder / "converted_keras.zip", "w") as archive:
        archive.write(folder / "keras_model.h5", "keras_model.h5")
        archive.writestr("labels.txt", "0 apple\n1 dragon fruit\n2 pear\n")


def make_mlflow_folder(folder: Path) -> None:
    """What `mlflow artifacts download` writes of a model with the Keras flavor."""
    flavor = "keras: {data: data, keras_version: 3.9.0, save_exported_model: false}"
    (folder / "fruit" / "data").mkdir(parents=True)
    (folder / "fruit" / "MLmodel").write_text(f"artifact_path: model\nflavors:\n  {flavor}\n")
    shutil.copy(folder / "model.keras", folder / "fruit" / "data")


def make_hugging_face_folder(folder: Path) -> None:
    """What `model.save("hf://…")` uploads: the parts of a `.keras` file."""
    shutil.rmtree(folder / "fruit")
    with zipfile.ZipFile(folder / "model.keras") as parts:
        parts.extractall(folder / "fruit")


def prepare_pictures(reader: Reader, made: Made) -> None:
    """Photographs of arrows."""
    made.start_with(reader, "arrows")
    (reader.folder / "photos").mkdir()
    with zipfile.ZipFile(DATA / "arrows.zip") as archive:
        photos = [name for name in archive.namelist() if name.endswith(".jpg")][:3]
        for name in photos:
            (reader.folder / "photos" / Path(name).name).write_bytes(archive.read(name))
        (reader.folder / "photo.jpg").write_bytes(archive.read(photos[0]))


def prepare_text(reader: Reader, made: Made) -> None:
    """Reviews, and an encoder with its tokenizer."""
    from litelambda.data.tokenizer_training import train_tokenizer
    from litelambda.keras_tools.backend import load_keras

    made.start_with(reader, "reviews")
    (reader.folder / "reviews.csv").write_text("".join((DATA / "reviews.csv").read_text().splitlines(True)[:20]))
    tokenizer = train_tokenizer("wordpiece", 200, ["I did not love the plot."] * 20)
    (reader.folder / "tokenizer.json").write_bytes(tokenizer)
    layers = load_keras().layers
    ids, mask = (layers.Input((8,), name=name, dtype="int32") for name in ("ids", "mask"))
    flat = layers.Flatten()(layers.Embedding(300, 4)(ids))
    outputs = layers.Dense(2)(layers.Concatenate()([flat, layers.Rescaling(1.0)(mask)]))
    load_keras().Model([ids, mask], outputs).save(reader.folder / "minilm.keras")


def prepare_prune(reader: Reader, made: Made) -> None:
    """Twelve versions in a bucket."""
    bucket(reader, made, fruits(reader, 12))


def prepare_roll_back(reader: Reader, made: Made) -> None:
    """Nine versions in a bucket, and of the function."""
    made.client("lambda").update_alias(FunctionName=deployed.FUNCTION, Name="live", FunctionVersion="9")
    put(reader, made, "rows.csv")
    bucket(reader, made, fruits(reader))


def prepare_signatures(reader: Reader, made: Made) -> None:
    """A recipe that learns little in place of the one that ships, two versions before it, and a key of KMS."""
    prepare_tiny("mnist_mlp")(reader, made)
    put(reader, made, "fruit.keras", "rows.npy")
    fruits(reader, 2, "mnist_mlp")
    (reader.folder / "models" / "mnist_mlp" / "aliases.json").unlink()
    key = made.client("kms").create_key()["KeyMetadata"]["Arn"]
    reader.replaced["arn:aws:kms:eu-west-1:111122223333:key/…"] = key


def prepare_deployment(reader: Reader, made: Made) -> None:
    """A recipe that learns little, the answer to what `delete` asks, and a server in place of an API, unsigned."""
    prepare_tiny("mnist_mlp")(reader, made)
    fruits(reader)
    put(reader, made, "row.json")
    serve(reader)
    reader.variables["ApiUrl"] = f"http://localhost:{reader.replaced[PORT]}"
    reader.answers["litelambda delete"] = "n\n"


def prepare_tiny(name: str) -> Preparation:
    """A recipe of this name that learns little, and a bucket."""

    def prepare(reader: Reader, made: Made) -> None:
        put(reader, made, "tiny.npz")
        text = (made.folder / "recipe.toml").read_text().replace('name = "tiny"', f'name = "{Path(name).stem}"')
        (reader.folder / name).write_text(text)
        bucket(reader, made)

    return prepare


def prepare_stages(reader: Reader, made: Made) -> None:
    """The recipe of a seventh version."""
    prepare_tiny("fruit.toml")(reader, made)
    name = bucket(reader, made, fruits(reader, 6))
    made.client("s3").delete_object(Bucket=name, Key="models/fruit/aliases.json")


def prepare_project(reader: Reader, made: Made) -> None:
    """A table of flowers, and a model."""
    put(reader, made, "fruit.keras", "rows.npy", "labels.txt")
    rows = "".join(f"{n % 3 * 3 + n % 7 / 5},{n % 5 / 5},{('rose', 'lily', 'iris')[n % 3]}\n" for n in range(300))
    (reader.folder / "flowers.csv").write_text(f"length,width,species\n{rows}")


def prepare_stream(reader: Reader, made: Made) -> None:
    """A server in place of a function URL, since it streams likewise, and the model of the README."""
    put(reader, made, "rows.json", "fruit.keras", "rows.npy")
    fruits(reader, name="mnist_mlp")
    (make, *_) = examples_for(PROJECT / "README.md", TUTORIAL)
    reader.follow([make])
    tensor = {"name": "sensors", "datatype": "FP32", "shape": [1, 4], "data": ROW}
    (reader.folder / "request.json").write_text(json.dumps({"inputs": [tensor]}))
    name = bucket(reader, made, shown="bucket")
    reader.instead["aws s3 cp"] = lambda folder: made.client("s3").upload_file(
        str(folder / "request.json"), name, "prefix/request.json"
    )
    serve(reader, f"REQUEST_STORE=s3://{name}/prefix ")
    reader.variables["StreamUrl"] = f"http://localhost:{reader.replaced[PORT]}/"


def prepare_files(*names: str) -> Preparation:
    """Shared files alone, and nine versions of a model."""

    def prepare(reader: Reader, made: Made) -> None:
        fruits(reader)
        put(reader, made, *names)

    return prepare


def prepare_checkout(reader: Reader, made: Made) -> None:
    """The Makefile."""
    (reader.folder / "Makefile").symlink_to(PROJECT / "Makefile")


def prepare_shell(reader: Reader, made: Made) -> None:
    """The folder where fish looks for completions."""
    (reader.folder / ".config" / "fish" / "completions").mkdir(parents=True)


PREPARED: dict[str, Preparation] = {
    "CONTRIBUTING": prepare_checkout,
    "access": prepare_access,
    "audit": prepare_audit,
    "batch-scoring": prepare_batch_scoring,
    "canary": prepare_canary,
    "capture": prepare_capture,
    "cloud-run": prepare_files("fruit.keras", "rows.npy"),
    "command-line": prepare_shell,
    "compress": prepare_reported("mnist_mlp_auto"),
    "cost": prepare_cost,
    "custom-code": prepare_custom_code,
    "deploy": prepare_deployment,
    "drift": prepare_drift,
    "explain": prepare_penguins,
    "gate-refused": prepare_files("recipe.toml", "tiny.npz", "fruit.keras model.keras", "rows.npy"),
    "import": prepare_import,
    "other-stores": prepare_files("fruit.keras", "rows.npy"),
    "pictures": prepare_pictures,
    "pin-a-version": prepare_tiny("mnist_mlp"),
    "prune": prepare_prune,
    "read-the-report": prepare_reported("mnist_mlp"),
    "roll-back": prepare_roll_back,
    "sign-and-encrypt": prepare_signatures,
    "stages": prepare_stages,
    "start-a-project": prepare_project,
    "stream": prepare_stream,
    "tables": prepare_penguins,
    "text": prepare_text,
}
"""What makes the things that a page says are needed; where nothing is named, there are nine versions of `fruit`."""
