"""SAM's own view of the template: valid, clean, and built without Docker for either architecture."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from litelambda.commands.package import ARCHITECTURES, package
from litelambda.common.paths import PROJECT
from support.sam import CFN_LINT, ENVIRONMENT, SAM, build, needs_sam, sam

if TYPE_CHECKING:
    from pathlib import Path

    from litelambda.commands.package import Architecture

pytestmark = [needs_sam, pytest.mark.slow]


def test_validate() -> None:
    """`sam validate --lint` has nothing to say against the template."""
    assert "is a valid SAM Template" in sam("validate", "--lint").stdout


def test_nested_templates_are_clean() -> None:
    """cfn-lint has nothing to say against the nested templates, which `sam validate` does not read."""
    templates = sorted((PROJECT / "infra").glob("*.yaml"))
    done = subprocess.run([CFN_LINT, *templates], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_build_ships_the_package(arch: Architecture, tmp_path: Path) -> None:
    """`sam build` ships what `litelambda package` makes, file for file, for the architecture of the parameter."""
    built = build(arch, tmp_path / "sam").parent / "PredictFunction"
    packaged = package(arch, tmp_path / "package").directory
    names = {path.relative_to(packaged) for path in packaged.rglob("*") if path.is_file()}
    assert {path.relative_to(built) for path in built.rglob("*") if path.is_file()} == names
    assert all((built / name).read_bytes() == (packaged / name).read_bytes() for name in names)


TRANSFORM = """
import json, sys
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

template = yaml_parse(open("template.yaml").read())
for resource in template["Resources"].values():
    properties = resource.get("Properties", {})
    properties.update({name: "s3://bucket/key" for name in ("CodeUri", "TemplateURL") if name in properties})
print(json.dumps(transform(template, {"DeploymentPreference": sys.argv[1]}, None)["Resources"]))
"""


@pytest.mark.parametrize("preference", ["AllAtOnce", "Canary10Percent5Minutes", "Linear10PercentEvery1Minute"])
def test_gradual_deployments(preference: str) -> None:
    """SAM makes CodeDeploy's resources for a gradual deployment, with the alarms and the hook, and for no other."""
    command = [SAM.with_name("python"), "-c", TRANSFORM, preference]
    done = subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resources = json.loads(done.stdout)
    groups = {name: each for name, each in resources.items() if each["Type"] == "AWS::CodeDeploy::DeploymentGroup"}
    alias = resources["PredictFunctionAliaslive"]
    if preference == "AllAtOnce":
        assert (groups, "UpdatePolicy" in alias) == ({}, False)
        return
    (properties,) = (each["Properties"] for each in groups.values())
    assert properties["DeploymentConfigName"]["Fn::Sub"][1] == {"ConfigName": preference}
    assert len(properties["AlarmConfiguration"]["Alarms"]) == 3
    assert "DEPLOYMENT_STOP_ON_ALARM" in properties["AutoRollbackConfiguration"]["Events"]
    update = alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert update["BeforeAllowTrafficHook"] == {"Ref": "PreTrafficFunction"}
    version = resources["PreTrafficFunction"]["Properties"]["Environment"]["Variables"]["NEW_VERSION"]["Ref"]
    assert alias["Properties"]["FunctionVersion"] == {"Fn::GetAtt": [version, "Version"]}
