"""The `litelambda` command: arguments in, exit codes out. Each subcommand imports only what it needs.

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted, 141 the reader of the output closed it. With
`--json`, stdout carries one JSON document and nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda import __version__
from litelambda.common.errors import LitelambdaError, UsageError
from litelambda.common.interrupts import interrupts_noted
from litelambda.common.paths import DEFAULT_STORE, store_url
from litelambda_serving.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_BENCHMARKS = {
    "cold": "time every handler from the start of its process to ready",
    "warm": "time requests to handlers that are up",
    "batch": "time rows through the batch engine, on one core",
    "conversion": "convert every architecture and kind of layer",
}
_INTERRUPTED = 130
_READER_GONE = 141  # what a shell says of a program that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        return _run(_parser().parse_args(argv))
    except BrokenPipeError:  # as from `| head -1`
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # what is still in their buffers goes there when Python exits
            os.dup2(nowhere, stream.fileno())
        return _READER_GONE


def _run(arguments: argparse.Namespace) -> int:
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except (LitelambdaError, ServingError) as error:
        print(f"litelambda: error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        print("litelambda: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="litelambda", description="A trained Keras model behind HTTPS on AWS Lambda, colder than hello world."
    )
    parser.add_argument("--version", action="version", version=f"litelambda {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_build(commands)
    _add_import(commands)
    _add_models(commands)
    _add_alias(commands)
    _add_serve(commands)
    _add_score(commands)
    _add_package(commands)
    _add_bench(commands)
    return parser


def _add(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str, *, store: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run)
    if store:
        parser.add_argument(
            "--store", default=DEFAULT_STORE, type=_store, metavar="URL",
            help="a folder, or s3://bucket/prefix (default: models/ in the current directory)",
        )  # fmt: skip
    return parser


def _store(text: str) -> str:
    try:
        return store_url(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, nothing else")


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _add_build(commands: Any) -> None:
    parser = _add(commands, "build", _build, "train, compress, quantize, verify and publish a model", store=True)
    parser.add_argument("recipe", metavar="RECIPE.toml", help="see build/recipes/")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides",
        help="override a value of the recipe; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--accept-worse", action="store_true",
        help="publish even if the version that an alias points at now does better on the same test rows",
    )  # fmt: skip
    _add_json(parser)


def _build(arguments: argparse.Namespace) -> None:
    with interrupts_noted():
        _build_interruptibly(arguments)


def _build_interruptibly(arguments: argparse.Namespace) -> None:
    from litelambda.recipe.load import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)  # before TensorFlow: a typo answers at once
    from litelambda.commands.build import build, train_with_others
    from litelambda.common.progress import open_reporter
    from litelambda.training.cluster import read_cluster

    reporter, cluster = open_reporter(json_output=arguments.json), read_cluster()
    if cluster is not None and not cluster.is_chief:
        train_with_others(recipe, reporter)
        if arguments.json:
            _print_json({"model": recipe.publish.name, "published": False, "trained_as": cluster.name})
        else:
            print(f"{cluster.name} has trained with the others; {cluster.chief} publishes")
        return
    result = build(recipe, arguments.store, reporter, accept_worse=arguments.accept_worse)
    if arguments.json:
        _print_json(result.to_json())
    else:
        print(result.describe())


def _add_import(commands: Any) -> None:
    parser = _add(commands, "import", _import, "publish a model that was made elsewhere, verified", store=True)
    parser.add_argument("path", type=Path, metavar="PATH", help=".tflite, .keras, .h5, or the folder of a SavedModel")
    parser.add_argument("--name", required=True, metavar="NAME", help="the model's name in the store")
    parser.add_argument(
        "--representative", type=Path, metavar="DATA",
        help=".npy or .npz with rows as the model will see them: it is quantized to int8 with these",
    )  # fmt: skip
    parser.add_argument("--labels", type=Path, metavar="FILE", help="names of the classes, a JSON list or a line each")
    parser.add_argument(
        "--preprocessing", metavar="JSON",
        help="what makes a raw value (a pixel) the model's, JSON or a file of it: "
        '{"scale": 0.00784, "offset": -1}, lists for channels, or these by input (default: a .tflite file\'s metadata)',
    )  # fmt: skip
    parser.add_argument(
        "--max-difference", type=_positive, default=0.1, metavar="SHARE",
        help="how far 99 %% of the int8 model's values may be from its source's, as a share of the output's range; any "
        "value, five times as far (default: 0.1)",
    )  # fmt: skip
    parser.add_argument(
        "--accept-loss", action="store_true",
        help="publish the int8 model however far it is from its source, and whatever the representative rows are",
    )  # fmt: skip
    _add_json(parser)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, such as 0.1")
    return value


def _import(arguments: argparse.Namespace) -> None:
    with interrupts_noted():
        _import_interruptibly(arguments)


def _import_interruptibly(arguments: argparse.Namespace) -> None:
    from litelambda.commands.import_model import import_model
    from litelambda.common.progress import open_reporter

    result = import_model(
        arguments.path,
        arguments.name,
        arguments.store,
        representative=arguments.representative,
        labels=arguments.labels,
        preprocessing=arguments.preprocessing,
        max_difference=arguments.max_difference,
        accept_loss=arguments.accept_loss,
        reporter=open_reporter(json_output=arguments.json),
    )
    if arguments.json:
        _print_json(result.to_json())
    else:
        print(result.describe())


def _add_models(commands: Any) -> None:
    parser = _add(commands, "models", _models, "list the models of a store", store=True)
    parser.add_argument(
        "--report", metavar="NAME[@ALIAS|:VERSION]", help="open what was measured when this one was built"
    )
    _add_json(parser)


def _models(arguments: argparse.Namespace) -> None:
    from litelambda.store.artifact_store import check_store_exists
    from litelambda.store.catalogue import describe_models, list_models

    check_store_exists(arguments.store)

    if arguments.report:
        from litelambda.store.open_report import open_report

        print(open_report(arguments.store, arguments.report))
        return
    models = list_models(arguments.store)
    if arguments.json:
        _print_json(models)
    else:
        print(describe_models(models, arguments.store))


def _add_alias(commands: Any) -> None:
    parser = _add(commands, "alias", _alias, "point an alias of a model at one of its versions", store=True)
    parser.add_argument("model", metavar="NAME")
    parser.add_argument("alias", metavar="ALIAS", help="latest, stable, …")
    parser.add_argument("version", metavar="VERSION", type=int)
    parser.add_argument(
        "--canary", action="append", default=[], type=_share, metavar="VERSION=PERCENT",
        help="let this version answer so many percent of the alias' requests; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--shadow", type=int, metavar="VERSION",
        help="run this version beside the one that answers, and count where it decides otherwise",
    )  # fmt: skip


def _alias(arguments: argparse.Namespace) -> None:
    from litelambda.store.artifact_store import check_store_exists, open_publishing_store

    check_store_exists(arguments.store)
    store, canary = open_publishing_store(arguments.store), dict(arguments.canary)
    store.set_alias(arguments.model, arguments.alias, arguments.version, canary, arguments.shadow)
    others = [f"version {version} for {percent:g} % of requests" for version, percent in canary.items()]
    others += [f"version {arguments.shadow} as its shadow"] if arguments.shadow else []
    names = ", ".join([f"version {arguments.version}", *others])
    print(f"{arguments.model}: {arguments.alias} is now {names}", file=sys.stderr)


def _share(text: str) -> tuple[int, float]:
    version, _, percent = text.partition("=")
    try:
        return int(version), float(percent.rstrip("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: expected VERSION=PERCENT, as in 8=10") from None


def _add_serve(commands: Any) -> None:
    parser = _add(
        commands, "serve", _serve, "serve a store's models over HTTP, as the deployed function does", store=True
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to bind (default: 127.0.0.1)")
    parser.add_argument("--port", default=8080, type=_port, metavar="P", help="0 takes a free one (default: 8080)")
    parser.add_argument("--model", default="", metavar="NAME", help="load this model before the first request")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))


def _serve(arguments: argparse.Namespace) -> None:
    from litelambda.commands.serve import serve

    serve(
        arguments.store,
        host=arguments.host,
        port=arguments.port,
        model=arguments.model,
        log_level=arguments.log_level,
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: expected a number from 0 to 65535")
    return int(text)


def _add_score(commands: Any) -> None:
    parser = _add(commands, "score", _score, "score a file, or all images of a prefix", store=True)
    parser.set_defaults(store=None)  # so that one that was given can be told from none
    parser.add_argument(
        "input", metavar="INPUT", help="path or s3:// URL of .jsonl, .csv, .npy, .npz (or .gz), or a prefix/"
    )
    parser.add_argument(
        "output", metavar="OUTPUT", help="path or s3:// URL ending with .jsonl, .csv or .npy, or a prefix/"
    )
    parser.add_argument("--model", required=True, metavar="NAME[@ALIAS|:VERSION]")
    parser.add_argument("--on", choices=("local", "aws"), default="local", help="where to run (default: local)")
    parser.add_argument("--state-machine", metavar="ARN", help="of --on aws (default: $LITELAMBDA_STATE_MACHINE)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="cores to use here (default: all)")
    parser.add_argument(
        "--input-format", metavar="NAME", help="jsonl, csv, npy, npz or images (default: by the ending)"
    )
    parser.add_argument("--output-format", metavar="NAME", help="jsonl, csv or npy (default: by the ending)")
    parser.add_argument(
        "--passthrough", metavar="A,B,…", help="fields that the output repeats (default: all but inputs)"
    )
    parser.add_argument(
        "--tolerate", type=float, default=0.01, metavar="SHARE", help="share of bad rows to accept (default: 0.01)"
    )
    parser.add_argument("--resize", action="store_true", help="resize images that have not the model's size")
    parser.add_argument("--force", action="store_true", help="write over an output that exists")
    _add_json(parser)


def _score(arguments: argparse.Namespace) -> None:
    from litelambda.commands.score import make_job, score
    from litelambda.common.progress import open_reporter

    _check_options(arguments)
    passthrough = arguments.passthrough
    described: dict[str, Any] = {
        "model": arguments.model,
        "input_format": arguments.input_format or "",
        "output_format": arguments.output_format or "",
        "passthrough": None if passthrough is None else [*filter(None, passthrough.split(","))],
        "tolerate": arguments.tolerate,
        "resize": arguments.resize,
    }
    if arguments.on == "aws":
        from litelambda.commands.score_on_aws import submit

        machine = arguments.state_machine or os.environ.get("LITELAMBDA_STATE_MACHINE", "")
        if not machine:
            raise UsageError("--on aws needs --state-machine ARN (an output of the stack), or LITELAMBDA_STATE_MACHINE")
        result = submit(make_job(arguments.input, arguments.output, **described), machine)
    else:
        result = score(
            arguments.input,
            arguments.output,
            store=arguments.store or DEFAULT_STORE,
            workers=arguments.workers,
            force=arguments.force,
            reporter=open_reporter(json_output=arguments.json),
            **described,
        )
    if arguments.json:
        _print_json(result.to_json())
    else:
        print(result.describe())


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that would be ignored where the job runs."""
    if arguments.on == "aws":
        given = {"--force": arguments.force, "--workers": arguments.workers, "--store": arguments.store}
        why = "the deployed function has a store and cores of its own, and writes over no output"
    else:
        given = {"--state-machine": arguments.state_machine}
        why = "nothing is submitted"
    ignored = ", ".join(option for option, value in given.items() if value)
    if ignored:
        raise UsageError(f"--on {arguments.on} does not take {ignored}: {why}")


def _add_package(commands: Any) -> None:
    parser = _add(commands, "package", _package, "make the deployment package, exactly what `sam build` ships")
    parser.add_argument("--arch", choices=("x86_64", "arm64"), default="arm64", help="(default: arm64)")
    parser.add_argument(
        "--function",
        choices=("predict", "score"),
        default="predict",
        help="predictions over HTTP, or batches (default: predict)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    _add_json(parser)


def _package(arguments: argparse.Namespace) -> None:
    from litelambda.commands.package import package

    result = package(arguments.arch, arguments.output, arguments.function)
    if arguments.json:
        _print_json(result.summary())
        return
    print(f"{result.archive}: {result.size_bytes / 1e6:.2f} MB, SHA-256 {result.sha256}")
    for note in result.notes:
        print(f"litelambda: note: {note}", file=sys.stderr)


def _add_bench(commands: Any) -> None:
    from litelambda.bench import flags

    bench = commands.add_parser("bench", help="measure cold starts, requests and conversions")
    kinds = bench.add_subparsers(title="benchmarks", metavar="KIND", required=True)
    for kind, summary in _BENCHMARKS.items():
        parser = _add(kinds, kind, _bench, summary)
        parser.set_defaults(benchmark=kind)
        getattr(flags, f"add_{kind}_arguments")(parser)
        _add_json(parser)


def _bench(arguments: argparse.Namespace) -> None:
    package = f"litelambda.bench.{arguments.benchmark}"
    result = importlib.import_module(f"{package}.benchmark").run(arguments)
    if arguments.json:
        _print_json(result)
    else:
        importlib.import_module(f"{package}.table").show(result)


if __name__ == "__main__":
    sys.exit(main())
