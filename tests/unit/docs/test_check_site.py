"""The check that the documentation's site loads nothing from the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from litelambda.common.paths import PROJECT

CHECK = PROJECT / "docs" / "check_site.py"


def check(site: Path) -> subprocess.CompletedProcess[str]:
    """Run the check on a site."""
    command = [sys.executable, str(CHECK), str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.html", '<script src="https://cdn.example/a.js"></script>'),
        ("index.html", '<link rel="stylesheet" href="//cdn.example/a.css">'),
        ("index.html", '<img src="http://cdn.example/a.png">'),
        ("index.html", '<img srcset="a.png 1x, https://cdn.example/a.png 2x">'),
        ("index.html", '<link rel="preconnect" href="https://fonts.example">'),
        ("index.html", "<style>p { background: url(https://cdn.example/a.png) }</style>"),
        ("a.css", "@font-face { src: url('https://fonts.example/a.woff2') }"),
        ("a.css", '@import "https://cdn.example/b.css";'),
    ],
)
def test_what_a_browser_would_load_from_elsewhere_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """Scripts, styles, fonts and images of another host fail the check, by file and address."""
    (tmp_path / name).write_text(text)
    done = check(tmp_path)
    assert done.returncode == 1
    assert f"{name}: " in done.stderr
    assert ".example" in done.stderr


def test_links_that_a_reader_follows_and_own_files_are_allowed(tmp_path: Path) -> None:
    """A link in the text loads nothing, and the site's own files may be loaded."""
    (tmp_path / "index.html").write_text('<a href="https://keras.example">Keras</a><script src="assets/a.js"></script>')
    (tmp_path / "a.css").write_text("p { background: url(images/a.svg) }")
    assert check(tmp_path).returncode == 0
