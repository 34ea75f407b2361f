"""Where the project's own files are. The toolchain runs from a checkout: what it deploys lies beside it."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FUNCTIONS = PROJECT / "functions"
RECIPES = PROJECT / "build" / "recipes"
REQUIREMENTS = PROJECT / "requirements"
TEMPLATE = PROJECT / "template.yaml"
DEFAULT_STORE = (PROJECT / "models").as_uri()
