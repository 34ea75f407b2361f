"""Containers of images that `litelambda package` made, as a platform runs them: without a right to write anything."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.ports import answers
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["container", "docker"]


def docker(*arguments: str) -> str:
    """Run a docker command that must succeed; what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def container(
    image: str, models: Path, *options: str, command: tuple[str, ...] = (), ready: str = "", **environment: str
) -> Iterator[tuple[str, int]]:
    """Run an image that listens on port 8080, with a store as its models.

    Args:
        image: its name.
        models: the store, which any user can read from then on.
        options: further ones of `docker run`.
        command: in place of the image's own.
        ready: path that answers once it is up; "" for not to wait.
        environment: its variables.

    Yields:
        The container's id, and the port on this machine.
    """
    for path in (models, *models.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    variables = [f"--env={name}={value}" for name, value in {"MODEL_STORE": "file:///models", **environment}.items()]
    running = docker(
        *("run", "--detach", "--read-only", "--cap-drop", "ALL", "--publish", "127.0.0.1::8080"),
        *(f"--volume={models}:/models:ro", *variables, *options, image, *command),
    )
    try:
        port = int(docker("port", running, "8080").splitlines()[0].rpartition(":")[2])
        if ready:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}{ready}"), explain=lambda: docker("logs", running))
        yield running, port
    finally:
        docker("rm", "--force", running)
