"""Deploying a stack: the deployment package in the template's place for it, `sam deploy`, and a model to answer with.

A parameter that is not named keeps the value of the last deployment, and is shown. `samconfig.toml` is not read: what
`sam deploy --guided` saved there would reset every parameter that was set since.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from litelambda.commands.deployed_trust import check_trust, find_served, key_parameters, note_signature
from litelambda.commands.first_prediction import predict_once
from litelambda.commands.package import package
from litelambda.common.errors import UsageError
from litelambda.common.paths import DEFAULT_STORE, PROJECT, store_url
from litelambda.stacks.parameters import (
    check_description,
    check_store,
    declared_parameters,
    read_assignments,
    show_parameters,
)
from litelambda.stacks.sam import deploy_template, find_sam, show_changes
from litelambda.stacks.stack import DEFAULT_STACK, Stack, check_usable, read_stack, wait_while_busy
from litelambda.store.artifact_store import Store
from litelambda.store.checks import check_store_exists
from litelambda.store.copies import Version, copy_version, find_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from litelambda.commands.package import Architecture, Function, PackageResult, PartName

__all__ = ["deploy"]

_TEMPLATES: dict[Function, str] = {"predict": "template.yaml", "score": "infra/scoring.yaml"}
_STACKS: dict[Function, str] = {"predict": DEFAULT_STACK, "score": "litelambda-scoring"}
_HOOK = "infra/pre_traffic"  # the function that CodeDeploy asks before a gradual deployment
_NOTHING = "nothing"  # the parameter PackageWith, where the package has no optional part
_PINS = ("ModelName", "ModelVersion", "ModelManifestSha256")
_PARTS = {"image": "images", "text": "text"}
"""By the kind of raw values that a model reads, the part that its package needs."""


def deploy(  # noqa: PLR0913 - all but the first three are named by the caller
    function: Function,
    assignments: Sequence[str] = (),
    stack: str | None = None,
    *,
    model: str = "",
    store: str | Path = DEFAULT_STORE,
    code: str | Path | None = None,
    access_policy: str | Path | None = None,
    tags: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    """Package a function and deploy its stack; with a model, publish it there, pin it and have it predict.

    Everything is looked up before it is done: after an interruption the same call does what is left.

    Args:
        function: whose stack: "predict", the HTTP API, or "score", the batch stack.
        assignments: the parameters to set, each as `Name=value`.
        stack: its name; None is "litelambda", or "litelambda-scoring" for the batch stack.
        model: `NAME`, `NAME@ALIAS` or `NAME:VERSION` of `store`, which the API is to serve; "" for none.
        store: where the model is: a folder, or `s3://bucket/prefix`.
        code: a file with `preprocess`, `postprocess` or both, which the function runs before and after the model.
        access_policy: a file that says who may do what with which model; it sets `AccessPolicy=packaged`.
        tags: the tags to set on everything in the stack, each as `key=value`; the others stay.
        dry_run: show the change set, and change nothing.

    Raises:
        UsageError: an assignment sets no parameter of the template, SAM is not installed, credentials are missing, the
            stack asks for an access policy and there is none, or its function would refuse the model.
        PublishError, StoreError: the model is not there, or the stack's store does not take it.
        AwsError: AWS cannot be asked, or the deployment failed.
        ServiceError: what was deployed does not predict.
    """
    name = stack or _STACKS[function]
    sam = find_sam()
    declared = declared_parameters(PROJECT / _TEMPLATES[function])
    given = read_assignments(assignments, declared)
    check_store(given)
    given_tags = _read_tags(tags)
    if model in declared:
        read_assignments([model], declared)  # which refuses it: a value is missing
    version = _find_model(model, store, function, given)
    found = wait_while_busy(name, lambda said: print(f"deploy: {said}", flush=True))
    if found is not None:
        check_usable(found)
    all_tags = {**(found.tags if found else {}), **given_tags}
    deployed = found.parameters if found else {}
    _unpin(given, deployed)
    _check_served(version, given, declared, found)
    _complete(given, {**declared, **deployed}, function, version, access_policy)
    values = {**declared, **deployed, **given, **_pins(version)}
    if function == "predict":
        check_description(name, values)
    print(f"deploy: the stack {name}{'' if found else ', for the first time'}", flush=True)
    show_parameters({**given, **_pins(version)}, deployed, declared)
    with tempfile.TemporaryDirectory(prefix="litelambda-deploy-") as scratch:
        folder = Path(scratch)
        _make(folder, function, values, code, access_policy)
        template = folder / _TEMPLATES[function]
        if dry_run:
            show_changes(sam, template, name, {**given, **_pins(version)}, all_tags)
            print("deploy: nothing was changed: leave out --dry-run to deploy", flush=True)
            return
        if version is not None:
            if not values["ModelStore"] and not (found and "ArtifactBucket" in found.outputs):
                deploy_template(
                    sam, template, name, given, all_tags
                )  # the bucket comes first, then the model, then its pin
            _publish(version, values["ModelStore"] or read_stack(name).store)
        deploy_template(sam, template, name, {**given, **_pins(version)}, all_tags)
    if version is not None:
        predict_once(read_stack(name), version)


def _find_model(model: str, store: str | Path, function: Function, given: Mapping[str, str]) -> Version | None:
    """The version to publish, before anything is built for it."""
    if not model:
        return None
    if function != "predict":
        raise UsageError(f"{model}: the batch stack has no store: it reads what ModelStore=s3://… names")
    if said := [name for name in _PINS if name in given]:
        raise UsageError(f"{model} sets {', '.join(_PINS)}: leave out {', '.join(said)}, or the model")
    if given.get("ModelStore", "").startswith("file:"):
        raise UsageError(f"{model} cannot be published to {given['ModelStore']}: models of the package are put into it")
    url = store_url(store)
    check_store_exists(url)
    return find_version(Store(url), model)


def _check_served(
    version: Version | None, given: dict[str, str], declared: Mapping[str, str], found: Stack | None
) -> None:
    """See that the function may serve its model, the given one or what the parameters name; set the key it needs."""
    deployed = found.parameters if found else {}
    values = {**declared, **deployed, **given}
    own = found.store if found and "ArtifactBucket" in found.outputs else ""
    served = version or find_served(values, values["ModelStore"] or own)
    if served is None:
        return
    check_trust(served, values)
    given |= key_parameters(served, given, deployed)
    if version is not None:
        note_signature(version, values)


def _read_tags(assignments: Sequence[str]) -> dict[str, str]:
    tags = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not re.fullmatch(r"(?!aws:)[\w.:/+@-]{1,128}", key):
            raise UsageError(f"--tag {assignment!r}: expected key=value, with letters, digits and .:/+@_- in the key")
        tags[key] = value
    return tags


def _pins(version: Version | None) -> dict[str, str]:
    """The parameters that have the function serve this version and no other."""
    if version is None:
        return {}
    return dict(zip(_PINS, (version.model, str(version.number), version.digest), strict=True))


def _unpin(given: dict[str, str], deployed: Mapping[str, str]) -> None:
    """Let go of the deployed version's digest where another model or version is given: they do not have it."""
    changed = [name for name in _PINS[:2] if given.get(name, deployed.get(name)) != deployed.get(name)]
    if changed and deployed.get("ModelManifestSha256"):
        if "ModelName" in changed:
            given.setdefault("ModelVersion", "latest")
        given.setdefault("ModelManifestSha256", "")


def _complete(
    given: dict[str, str],
    values: Mapping[str, str],
    function: Function,
    version: Version | None,
    access_policy: str | Path | None,
) -> None:
    """Set what follows from the package: its architecture, the parts that the model needs, and the access policy."""
    given.setdefault("Architecture", values["Architecture"])
    if function == "score":
        if access_policy is not None:
            raise UsageError(
                "--access-policy is for the HTTP API: leave it out for the batch stack, which has IAM alone"
            )
        return
    if version is not None and "PackageWith" not in given:
        kinds = {each.get("kind") for each in version.fields.get("preprocessing", {}).values()}
        has = set(values["PackageWith"].split(",")) - {_NOTHING}
        if missing := {_PARTS[kind] for kind in kinds & _PARTS.keys()} - has:
            given["PackageWith"] = ",".join(sorted(has | missing))
    # Without a policy in the package the function would not start where it asks for one.
    if access_policy is not None:
        given.setdefault("AccessPolicy", "packaged")
    elif given.get("AccessPolicy", values["AccessPolicy"]) == "packaged":
        raise UsageError("the stack has AccessPolicy=packaged: give --access-policy FILE, or AccessPolicy=none")


def _make(
    folder: Path,
    function: Function,
    values: Mapping[str, str],
    code: str | Path | None,
    access_policy: str | Path | None,
) -> None:
    """The templates and what they name, with the package in the place of its sources."""
    parts = [cast("PartName", part) for part in values.get("PackageWith", _NOTHING).split(",") if part != _NOTHING]
    architecture = cast("Architecture", values["Architecture"])
    made: PackageResult = package(architecture, folder, function, parts, code=code, access_policy=access_policy)
    for note in made.notes:
        print(f"deploy: note: {note}", file=sys.stderr)
    made.directory.rename(folder / "functions")
    (folder / "infra").mkdir()
    for path in (PROJECT / "template.yaml", *PROJECT.glob("infra/*.yaml"), *PROJECT.glob("infra/*.json")):
        shutil.copy(path, folder / path.relative_to(PROJECT))
    shutil.copytree(PROJECT / _HOOK, folder / _HOOK, ignore=shutil.ignore_patterns("__pycache__"))


def _publish(version: Version, url: str) -> None:
    if url.startswith("file:"):
        raise UsageError(f"{version.model} cannot be published to {url}: models of the package are put into it")
    is_new = copy_version(version, Store(url))
    what = f"{version.model}:{version.number} ({version.digest[:12]}…)"
    print(f"deploy: {'published' if is_new else 'has'} {what} in {url}", flush=True)
