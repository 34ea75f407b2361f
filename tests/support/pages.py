"""The pages whose commands tests run, which test runs what, and what none can run here."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from litelambda.common.paths import PROJECT
from support.markdown import Example, read_examples

DOCS = PROJECT / "docs"
_FOLDERS = [PROJECT / name for name in ("", "build/recipes", "build/data", "requirements", "infra/local-image")]
PAGES = [*(page for folder in _FOLDERS for page in sorted(folder.glob("*.md"))), *sorted(DOCS.rglob("*.md"))]

NOT_RUN = {
    "make setup": "continuous integration begins with it",
    "make demo": "continuous integration runs it",
    "make test": "this is it",
    ".venv/bin/pre-commit install": "it would change the checkout's hooks",
    "python3 -m venv .venv": "tests/e2e/test_wheel.py installs into new environments",
    ". .venv/bin/activate": "of that environment",
    "pip install 'litelambda[": "tests/e2e/test_wheel.py installs the wheel and its extras",
    "uv tool install aws-sam-cli": "the one of `make setup-sam` is run",
    "litelambda bench": "takes minutes on an idle machine; tests/integration/test_bench.py measures less",
    "/usr/bin/time --verbose litelambda import wide.keras": "takes 6 GB of memory and most of a minute",
    "KERAS_BACKEND=jax": "tests/integration/test_jax.py builds like this, with a process for all of JAX's tests",
    "model_signing": "tests/contract/test_provenance.py runs it, in an environment of its own",
    "gcloud": "needs a project with billing",
    'curl -H "Authorization: Bearer $(gcloud': "needs a project with billing",
    "docker push": "needs a registry",
    "docker run --publish 8501:8501": "needs an image of a registry",
    "curl localhost:8501": "of that image",
    "aws sagemaker": "the emulator has no SageMaker",
    "mlflow": "not a tool of this project; what it writes is made by hand",
    "hf download": "needs the network; what it writes is made by hand",
    "aws s3 cp": "not a tool of this project; what it fetches is made by hand",
    "aws apigatewayv2": "not a tool of this project",
    "aws cloudformation": "not a tool of this project; tests/integration/test_iam.py reads that template",
    "aws logs": "not a tool of this project",
}
"""How commands begin that no test runs, and why."""

TUTORIAL, LOCAL, STACKS, IMAGES = (
    f"tests/e2e/{name}.py" for name in ("test_tutorial", "test_pages", "test_stacks", "test_image")
)
_OF_STACKS = re.compile(
    r"litelambda deploy fruit\b|(?!.*(Bearer|predict fruit --url)).*(--stack |--on aws|\$\{?ApiUrl)", re.DOTALL
)
_OF_IMAGES = re.compile(r"docker |litelambda package --target|printf 'FROM ")
_TUTORIAL_PAGES = (PROJECT / "README.md", DOCS / "tutorial.md")
_IMAGE_PAGES = ("docs/how-to/container.md",)


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(PROJECT).as_posix()


def runner_of(page: Path, command: str) -> str | None:
    """The test that runs a command of a page: the one on this machine, unless another is for it; None for `NOT_RUN`."""
    if command.startswith(tuple(NOT_RUN)):
        return None
    if _OF_STACKS.match(command):
        return STACKS
    if _OF_IMAGES.match(command) or name_of(page) in _IMAGE_PAGES:
        return IMAGES
    of_tutorial = page in _TUTORIAL_PAGES and not command.startswith("litelambda status")
    return TUTORIAL if of_tutorial else LOCAL


@cache
def examples_for(page: Path, runner: str | None) -> list[Example]:
    """What a test runs of a page, in its order."""
    return [example for example in read_examples(page) if runner_of(page, example.command) == runner]


def followed_by(page: Path, runner: str) -> list[Example]:
    """The same, with what no test runs at its place."""
    return [example for example in read_examples(page) if runner_of(page, example.command) in (runner, None)]


def pages_for(runner: str) -> list[Path]:
    """The pages of which a test runs something."""
    return [page for page in PAGES if examples_for(page, runner)]
