"""`litelambda import`."""

from __future__ import annotations

from pathlib import Path

import click

from litelambda.cli.options import PATH, encrypt_option, json_option, print_result, sign_option, store_option
from litelambda.common.interrupts import interrupts_noted
from litelambda.common.progress import open_reporter


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise click.BadParameter(f"{text!r}: expected a number above 0, such as 0.1")
    return value


@click.command()
@click.argument(
    "path",
    type=PATH,
    metavar="PATH",
    help="A .tflite, .keras or .h5 file, or the folder of a SavedModel; or what has one of these in it: a .tar.gz "
    "file, as SageMaker's, or a .zip file, a folder of MLflow's or of Hugging Face's.",
)
@store_option()
@click.option("--name", required=True, metavar="NAME", help="The model's name in the store.")
@click.option(
    "--representative",
    type=PATH,
    metavar="DATA",
    help="An .npy or .npz file with rows as the model will see them: it is quantized to int8 with these.",
)
@click.option("--labels", type=PATH, metavar="FILE", help="Names of the classes: a JSON list, or one per line.")
@click.option(
    "--preprocessing",
    metavar="JSON",
    show_default="a .tflite file's metadata",
    help="What makes raw values the model's, as JSON or a file of it: "
    '{"scale": 0.00784, "offset": -1}, lists for channels, {"kind": "image"} or "table" with their rules, or these by '
    "input.",
)
@click.option(
    "--tokenizer",
    type=PATH,
    metavar="FILE",
    help="A tokenizer.json of Hugging Face's, for a model that reads text. Of several inputs, --preprocessing "
    'says which do: {"ids": {"kind": "text", "emits": "ids"}, "mask": {"kind": "text", "emits": "mask"}}.',
)
@click.option(
    "--max-difference",
    type=_positive,
    default=0.1,
    metavar="SHARE",
    help="How far 99 % of the int8 model's values may be from its source's, as a share of the output's range; any "
    "value, five times as far.",
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Publish the int8 model however far it is from its source, and whatever the representative rows are.",
)
@click.option(
    "--explain/--no-explain",
    default=None,
    show_default="for a Keras model up to 10 MB in float32",
    help="Publish the model's integrated gradients for :explain.",
)
@sign_option
@encrypt_option
@json_option
def command(
    path: Path,
    store: str,
    name: str,
    representative: Path | None,
    labels: Path | None,
    preprocessing: str | None,
    tokenizer: Path | None,
    max_difference: float,
    accept_loss: bool,
    explain: bool | None,
    sign: str | None,
    encrypt: str | None,
    as_json: bool,
) -> None:
    """Publish a model that was made elsewhere, verified."""
    with interrupts_noted():
        from litelambda.store.signing import open_signer

        signer = open_signer(sign) if sign else None
        from litelambda.commands.import_model import import_model

        result = import_model(
            path,
            name,
            store,
            representative=representative,
            labels=labels,
            preprocessing=preprocessing,
            tokenizer=tokenizer,
            max_difference=max_difference,
            accept_loss=accept_loss,
            signer=signer,
            encrypt=encrypt,
            explain=explain,
            reporter=open_reporter(terminal_only=as_json),
        )
    print_result(result, as_json=as_json)
