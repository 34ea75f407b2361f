"""Canaries and shadows from the command to what a handler does with them."""

from __future__ import annotations

import json

import pytest

from litelambda.cli.main import main
from litelambda.common.errors import PublishError
from litelambda.store.artifact_store import Store
from litelambda.store.catalogue import describe_models, list_models
from support.golden_store import golden, publish
from support.handler_client import load_module, send


@pytest.fixture
def store(tmp_path):
    for version in (1, 2, 3):
        publish(tmp_path, "m", version, golden("half_plus_two"), created="2026-11-23T00:00:00Z", metrics={})
    return tmp_path


def read(store):
    return json.loads((store / "m/aliases.json").read_text())


def run(store, *arguments):
    return main(["alias", "m", *arguments, "--store", store.as_uri()])


def test_the_command_writes_what_the_handler_reads(store):
    """A canary of all requests answers all of them; the next plain move of the alias ends it."""
    assert run(store, "latest", "1", "--canary", "2=100", "--shadow", "3") == 0
    document = read(store)
    assert (document["latest"], document["canary"], document["shadow"]) == (1, {"latest": {"2": 100.0}}, {"latest": 3})
    assert set(document["versions"]) == {"1", "2", "3"}
    predict = ("POST", "/v1/models/m:predict", {"instances": [1.0]})
    assert send(load_module(store, "m").handler, *predict).headers["x-model-version"] == "2"
    assert run(store, "latest", "2") == 0
    document = read(store)
    assert {"canary", "shadow"}.isdisjoint(document)
    assert set(document["versions"]) == {"2"}
    assert send(load_module(store, "m").handler, *predict).headers["x-model-version"] == "2"


def test_aliases_do_not_share_their_canaries(store):
    """What is set for one alias leaves the others' canaries and shadows alone."""
    run(store, "latest", "1", "--canary", "2=10")
    run(store, "stable", "1", "--canary", "3=20", "--canary", "2=5%", "--shadow", "2")
    run(store, "latest", "2")
    assert read(store)["canary"] == {"stable": {"3": 20.0, "2": 5.0}}
    assert read(store)["shadow"] == {"stable": 2}


def test_publishing_leaves_canaries_alone(store):
    """A new version moves its alias; an operator's canary stays as it was set."""
    run(store, "latest", "1", "--canary", "2=10")
    Store(store.as_uri()).advance_alias("m", "latest", 3)
    assert (read(store)["latest"], read(store)["canary"]) == (3, {"latest": {"2": 10.0}})


@pytest.mark.parametrize(
    ("canary", "shadow", "message"),
    [
        ({2: 101}, None, "no more than 100"),
        ({2: 60, 3: 41}, None, "no more than 100"),
        ({2: 0}, None, "over 0"),
        ({2: -1}, None, "over 0"),
        ({2: float("nan")}, None, "over 0"),
        ({1: 10}, None, "its own canary or shadow"),
        ({}, 1, "its own canary or shadow"),
        ({9: 10}, None, "no version 9"),
        ({}, 9, "no version 9"),
    ],
)
def test_impossible_shares_change_nothing(store, canary, shadow, message):
    """Shares that do not add up, and versions that are not there, are refused before anything is written."""
    before = read(store)
    with pytest.raises(PublishError, match=message):
        Store(store.as_uri()).set_alias("m", "latest", 1, canary, shadow)
    assert read(store) == before


@pytest.mark.parametrize("share", ["2", "2=", "=5", "x=5", "2=x"])
def test_a_share_that_is_none_is_wrong_usage(store, share):
    """The command says what a share looks like."""
    assert run(store, "latest", "1", "--canary", share) == 2


def test_the_catalogue_shows_them(store):
    """`litelambda models` tells every version's part, in its JSON and in its table."""
    run(store, "latest", "1", "--canary", "2=12.5", "--shadow", "3")
    (model,) = list_models(store.as_uri())
    assert model["canary"] == {"latest": {"2": 12.5}}
    assert model["shadow"] == {"latest": 3}
    table = describe_models([model], store.as_uri())
    for part in (" latest ", " latest:canary=12.5% ", " latest:shadow "):
        assert part in table
