"""The forms for issues: the code host shows none that is not valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from litelambda.common.paths import PROJECT

FORMS = sorted((PROJECT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
FIELDS = {"markdown": {"value"}, "textarea": {"label"}, "input": {"label"}}


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_the_code_host_requires(form: Path) -> None:
    """Name, description and body; each element has a known type and what that type needs, and its id is its own."""
    document = yaml.safe_load(form.read_text())
    assert document["name"]
    assert document["description"]
    for element in document["body"]:
        assert FIELDS[element["type"]] <= element["attributes"].keys()
    ids = [element["id"] for element in document["body"] if element["type"] != "markdown"]
    assert ids
    assert len(ids) == len(set(ids))
