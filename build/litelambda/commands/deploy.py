"""Deploying a stack: the deployment package in the template's place for it, and `sam deploy`.

A parameter that is not named keeps the value of the last deployment, and is shown. `samconfig.toml` is not read: what
`sam deploy --guided` saved there would reset every parameter that was set since.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from litelambda.commands.package import package
from litelambda.common.errors import LitelambdaError, UsageError
from litelambda.common.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from litelambda.commands.package import Architecture, Function, PackageResult, PartName

__all__ = ["deploy"]

_TEMPLATES: dict[Function, str] = {"predict": "template.yaml", "score": "infra/scoring.yaml"}
_STACKS: dict[Function, str] = {"predict": "litelambda", "score": "litelambda-scoring"}
_HOOK = "infra/pre_traffic"  # the function that CodeDeploy asks before a gradual deployment
_MAX_DESCRIPTION = 256
"""Characters that Lambda allows in a version's description, which holds the parameters that a version is made of."""
_TEXTS = (
    *("ModelStore", "ModelName", "ModelVersion", "CorsAllowOrigin", "BasePath", "MetricsNamespace"),
    *("ModelPublicKey", "ModelMinimumVersion", "CaptureStore", "CaptureRedact", "SubnetIds"),
)
_DESCRIBED = (
    *_TEXTS,
    *("ModelManifestSha256", "KmsKeyArn", "ModelMemoryMb", "AliasRefreshSeconds"),
    *(
        "NumThreads",
        "MemorySize",
        "Timeout",
        "LogLevel",
        "CapturePercent",
        "CaptureMaxKb",
        "CaptureSeconds",
        "DriftWindow",
    ),
)
"""Each with a space after it in the description; four letters follow."""

_NOTHING = "nothing"  # the parameter PackageWith, where the package has no optional part


class _Loader(yaml.SafeLoader):
    """YAML whose tags (`!Ref`) mean nothing: only plain values are read here."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def deploy(
    function: Function,
    assignments: Sequence[str] = (),
    stack: str | None = None,
    *,
    code: str | Path | None = None,
    access_policy: str | Path | None = None,
) -> None:
    """Package a function and deploy its stack.

    Args:
        function: whose stack: "predict", the HTTP API, or "score", the batch stack.
        assignments: the parameters to set, each as `Name=value`.
        stack: its name; None is "litelambda", or "litelambda-scoring" for the batch stack.
        code: a file with `preprocess`, `postprocess` or both, which the function runs before and after the model.
        access_policy: a file that says who may do what with which model; it sets `AccessPolicy=packaged`.

    Raises:
        UsageError: an assignment sets no parameter of the template, SAM is not installed, or the stack asks for an
            access policy and there is none.
        LitelambdaError: AWS cannot be asked, or the deployment failed.
    """
    stack = stack or _STACKS[function]
    sam = shutil.which("sam")
    if sam is None:
        raise UsageError("the SAM command line, `sam`, is not installed: run `uv tool install aws-sam-cli`")
    declared = _declared(PROJECT / _TEMPLATES[function])
    given = _given(assignments, declared)
    deployed = _deployed(stack)
    architecture = given.get("Architecture") or deployed.get("Architecture") or declared["Architecture"]
    given["Architecture"] = architecture  # of what is packaged
    if function == "predict":
        _set_access_policy(access_policy, given, deployed)
        _check_description(stack, {**declared, **deployed, **given})
    elif access_policy is not None:
        raise UsageError("--access-policy is for the HTTP API: leave it out for the batch stack, which has IAM alone")
    with_ = given.get("PackageWith") or deployed.get("PackageWith") or declared.get("PackageWith", _NOTHING)
    parts = [cast("PartName", name) for name in with_.split(",") if name != _NOTHING]
    _show(stack, given, deployed, declared)
    with tempfile.TemporaryDirectory(prefix="litelambda-deploy-") as scratch:
        folder = Path(scratch)
        chosen = cast("Architecture", architecture)
        made = package(chosen, folder, function, parts, code=code, access_policy=access_policy)
        _lay_out(folder, made)
        _run_sam(sam, folder / _TEMPLATES[function], stack, given)


def _declared(template: Path) -> dict[str, str]:
    """The template's parameters with their defaults; a parameter without one has ""."""
    loaded: dict[str, Any] = yaml.load(template.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    return {name: str(each.get("Default", "")) for name, each in loaded["Parameters"].items()}


def _given(assignments: Sequence[str], declared: Mapping[str, str]) -> dict[str, str]:
    given = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator or name not in declared:  # SAM drops it without a word
            raise UsageError(f"{assignment!r} sets no parameter, expected Name=value with one of {', '.join(declared)}")
        given[name] = value
    return given


def _deployed(stack: str) -> dict[str, str]:
    """The parameters of the last deployment; none where there was no deployment."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        (found,) = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if "does not exist" in str(error):
            return {}
        raise LitelambdaError(f"the stack {stack} cannot be read: {error}") from error
    except BotoCoreError as error:
        raise LitelambdaError(f"AWS cannot be asked for the stack {stack}: {error}") from error
    if found["StackStatus"] == "REVIEW_IN_PROGRESS":  # its first change set was declined: nothing was deployed
        return {}
    return {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}


def _check_description(stack: str, values: Mapping[str, str]) -> None:
    """Refuse values that are too long together for a version's description: Lambda would, minutes later."""
    own_bucket = f"{stack}-artifactbucket-".ljust(len(stack) + 29, "?")[:63]  # as CloudFormation names it
    lengths = {name: len(values[name]) for name in _DESCRIBED}
    lengths["ModelStore"] = len(values["ModelStore"].partition("://")[2] or f"{own_bucket}/models")
    lengths["KmsKeyArn"] = len(values["KmsKeyArn"].partition(":key/")[2])
    total = sum(length + 1 for length in lengths.values()) + 4 - (not values["SubnetIds"])
    if total > _MAX_DESCRIPTION:
        longest = sorted(_TEXTS, key=lengths.__getitem__, reverse=True)[:3]
        raise UsageError(
            f"the parameters take {total} characters together, expected at most {_MAX_DESCRIPTION}, since Lambda keeps "
            f"them in a version's description: shorten {', '.join(f'{name} ({lengths[name]})' for name in longest)}"
        )


def _show(stack: str, given: Mapping[str, str], deployed: Mapping[str, str], declared: Mapping[str, str]) -> None:
    """Say what is set and what stays; values that are the template's defaults go without saying."""
    print(f"deploy: the stack {stack}{'' if deployed else ', for the first time'}", flush=True)
    for name, value in given.items():
        before = deployed.get(name)
        if value != before:
            print(f"deploy: sets  {name}={value}" + (f" (was {before!r})" if before is not None else ""), flush=True)
    for name, value in deployed.items():
        if given.get(name, value) == value != declared.get(name, value):
            print(f"deploy: keeps {name}={value}", flush=True)


def _set_access_policy(file: str | Path | None, given: dict[str, str], deployed: Mapping[str, str]) -> None:
    """Have the function ask for a policy that is packaged; without one it would not start where it asks."""
    if file is not None:
        given.setdefault("AccessPolicy", "packaged")
    elif given.get("AccessPolicy", deployed.get("AccessPolicy")) == "packaged":
        raise UsageError("the stack has AccessPolicy=packaged: give --access-policy FILE, or AccessPolicy=none")


def _lay_out(folder: Path, made: PackageResult) -> None:
    """The templates and what they name, with the package in the place of its sources."""
    for note in made.notes:
        print(f"deploy: note: {note}", file=sys.stderr)
    made.directory.rename(folder / "functions")
    (folder / "infra").mkdir()
    for path in (PROJECT / "template.yaml", *PROJECT.glob("infra/*.yaml"), *PROJECT.glob("infra/*.json")):
        shutil.copy(path, folder / path.relative_to(PROJECT))
    shutil.copytree(PROJECT / _HOOK, folder / _HOOK, ignore=shutil.ignore_patterns("__pycache__"))


def _run_sam(sam: str, template: Path, stack: str, given: Mapping[str, str]) -> None:
    command = [sam, "deploy", "--template-file", str(template), "--stack-name", stack, "--resolve-s3"]
    command += ["--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset"]
    command += ["--confirm-changeset"] if sys.stdin.isatty() else []
    command += ["--parameter-overrides", *(f"{name}={shlex.quote(value)}" for name, value in given.items())]
    done = subprocess.run(command, check=False)  # noqa: S603 - the user's own parameters
    if done.returncode:
        raise LitelambdaError(f"sam deploy ended with exit code {done.returncode}")
