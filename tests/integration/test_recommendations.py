"""Recommendations: two towers trained on interactions, published with their catalogue, asked by name."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from litelambda.artifact.reference import Reference
from litelambda.cli.main import main
from litelambda.commands.build import build
from litelambda.common.errors import GateError, RecipeError, TrainError
from litelambda.conversion.quantize import quantize
from litelambda.data.interactions import load_interactions
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.load import load_recipe
from litelambda.recipe.models import TwoTowerModel
from litelambda.recipe.sections import Quantize
from litelambda.training import two_tower
from support.handler_client import load_module, send

keras = load_keras()

ITEMS, GROUPS, K = 2_000, 20, 10
RECIPE = """
[model]
builder = "two_tower"
dimension = 8
top_k = 10
[data]
format = "interactions"
task = "recommendation"
path = "clicks.csv"
user = ["user", "group"]
item = "item"
item_features = ["genre"]
[train]
loss = "sampled_softmax"
epochs = 4
batch_size = 128
optimizer = { name = "adam", learning_rate = 0.03 }
[quantize]
scheme = "dynamic"
[gate]
max_accuracy_drop = 0.03
[publish]
name = "shop"
stored = "none"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A recipe, and clicks of groups of users that each like one genre."""
    folder = tmp_path_factory.mktemp("recommendations")
    random = np.random.default_rng(0)
    lines = ["user,group,item,genre"]
    for number in range(4_000):
        group = int(random.integers(GROUPS))
        item = int(random.zipf(1.5) % (ITEMS // GROUPS)) * GROUPS + group
        lines.append(f"u{number % 200 * GROUPS + group},g{group},i{item},genre {group}")
    lines += [f"u{row},g{row % GROUPS},i{row},genre {row % GROUPS}" for row in range(ITEMS)]  # the whole catalogue
    (folder / "clicks.csv").write_text("\n".join(lines) + "\n")
    (folder / "shop.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def built(place):
    return build(load_recipe(place / "shop.toml"), place / "store")


@pytest.fixture(scope="module")
def data(place):
    recipe = load_recipe(place / "shop.toml")
    return load_interactions(recipe.data, recipe.folder)


@pytest.fixture(scope="module")
def rows(data):
    """The raw values of the test rows, as a client has them."""
    raw = data.users.raw_test(np.arange(len(data.users.test)))
    return [dict(zip(raw, values, strict=True)) for values in zip(*raw.values(), strict=True)]


@pytest.fixture(scope="module")
def answers(built, place, rows):
    """What the deployed handler answers to all of them."""
    handler = load_module(place / "store", "shop").handler
    found = []
    for start in range(0, len(rows), 200):
        body = {"instances": rows[start : start + 200]}
        found += send(handler, "POST", "/v1/models/shop:predict", body).json()["predictions"]
    return found


def test_it_is_better_than_what_is_popular(built, data):
    """The gate's trivial model is the most popular items of the training rows, counted here by hand."""
    metrics = built.metrics
    popular = [number for number, _ in sorted(_counts(data.users.train.y).items(), key=lambda each: -each[1])][:K]
    by_hand = np.isin(data.users.test.y, popular).mean()
    assert metrics["trivial"]["recall"] == pytest.approx(by_hand, abs=0.01)  # ties may be counted otherwise
    assert metrics["quantized"]["recall"] > 1.5 * metrics["trivial"]["recall"]
    assert metrics["agreement"] > 0.9


def _counts(numbers):
    values, counts = np.unique(numbers, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_recall_over_http_is_the_builds(built, data, answers):
    """The share of test rows whose item is among the names that come back is the manifest's figure, to the last row."""
    names = [data.item_names[number] for number in data.users.test.y]
    hits = [name in answer["items"] for name, answer in zip(names, answers, strict=True)]
    assert np.mean(hits) == built.metrics["quantized"]["recall"]
    assert {len(answer["items"]) for answer in answers} == {K}


def test_scores_are_the_dot_products(built, place, data, answers):
    """The names and scores are those that numpy makes of the published Keras model's weights, up to int8."""
    saved = keras.models.load_model(place / "store" / "shop" / "1" / "model.keras", compile=False)
    weights = {layer.name: layer.get_weights() for layer in saved._flatten_layers() if layer.get_weights()}
    row = data.users.test.x[0]
    parts = []
    for column, number in enumerate(row):
        codes, scales = (weights[f"user_{column}_{name}"][0][number] for name in ("codes", "scales"))
        parts.append((codes.astype(np.float32) - 128) * scales)
    vector = np.sum(parts, axis=0)
    scores = dict(zip(data.item_names, (vector @ weights["catalogue"][0]).tolist(), strict=True))
    step = max(map(abs, scores.values())) / 40
    for name, score in zip(answers[0]["items"], answers[0]["scores"], strict=True):
        assert score == pytest.approx(scores[name], abs=step)
    assert sorted(scores, key=scores.__getitem__)[-1] in answers[0]["items"]
    assert answers[0]["scores"] == sorted(answers[0]["scores"], reverse=True)


def test_an_items_score_is_explained(built, place, rows, answers):
    """The best item by default, or one by its name; with what is unknown of a row, it may not be among the best."""
    handler = load_module(place / "store", "shop").handler
    for answer, target in ((answers[0], None), (answers[0], answers[0]["items"][2])):
        body = {"instances": rows[:1], "parameters": {"target": target}}
        (found,) = send(handler, "POST", "/v1/models/shop:explain", body).json()["explanations"]
        name = target or answer["items"][0]
        unknown = [dict.fromkeys(rows[0], "nothing like it")]
        (other,) = send(handler, "POST", "/v1/models/shop:predict", {"instances": unknown}).json()["predictions"]
        scores = [dict(zip(each["items"], each["scores"], strict=True)) for each in (answer, other)]
        assert (found["label"], found["baseline"]) == (name, "missing")
        assert found["output"] == scores[0][name]
        assert found["baseline_output"] == scores[1].get(name, min(scores[1].values()))
        assert found["attributions"].keys() == rows[0].keys()
        assert sum(found["attributions"].values()) == pytest.approx(
            found["output"] - found["baseline_output"], abs=1e-5
        )


def test_who_is_not_known_is_answered_too(built, place):
    """A new user is answered by what else is known; nothing known at all is an answer as well."""
    handler = load_module(place / "store", "shop").handler
    body = {"instances": [{"user": "new", "group": "g3"}, {"user": None, "group": "never"}]}
    first, second = send(handler, "POST", "/v1/models/shop:predict", body).json()["predictions"]
    genres = [int(name[1:]) % GROUPS for name in first["items"]]
    assert genres.count(3) > K / 2
    assert len(second["items"]) == K
    refused = send(handler, "POST", "/v1/models/shop:predict", {"instances": [{"user": "new"}]})
    assert (refused.status, "missing 'group'" in refused.json()["error"]) == (400, True)
    refused = send(handler, "POST", "/v1/models/shop:classify", {"examples": body["instances"]})
    assert (refused.status, "Expected Classification signature" in refused.json()["error"]) == (400, True)
    refused = send(handler, "POST", "/v1/models/shop:predict", {**body, "top_k": 3})
    assert (refused.status, "'top_k' and 'threshold' are for classes" in refused.json()["error"]) == (400, True)


def test_the_open_inference_protocol_has_the_names(place, rows, answers):
    """The items come back as BYTES, in JSON and in binary form, as the model's metadata says."""
    handler = load_module(place / "store", "shop").handler
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [3], "data": [row[name] for row in rows[:3]]} for name in rows[0]
    ]
    answer = send(handler, "POST", "/v2/models/shop/infer", {"inputs": inputs}).json()
    found = {output["name"]: output for output in answer["outputs"]}
    assert (found["items"]["datatype"], found["items"]["shape"]) == ("BYTES", [3, K])
    assert found["items"]["data"] == [item for answer in answers[:3] for item in answer["items"]]
    assert found["scores"]["data"] == [score for answer in answers[:3] for score in answer["scores"]]
    outputs = [{"name": "items", "parameters": {"binary_data": True}}]
    answer = send(handler, "POST", "/v2/models/shop/infer", {"inputs": inputs, "outputs": outputs})
    binary = answer.body[int(answer.headers["inference-header-content-length"]) :]
    first = answers[0]["items"][0].encode()
    assert binary.startswith(len(first).to_bytes(4, "little") + first)
    described = {each["name"]: each["datatype"] for each in send(handler, "GET", "/v2/models/shop").json()["outputs"]}
    assert described == {"items": "BYTES", "scores": "FP32"}


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_batch_scoring_has_the_names(built, place, tmp_path, rows, answers, ending):
    """A file's rows have the names and scores that requests have, also where columns are in another order."""
    source, output = tmp_path / f"rows.{ending}", tmp_path / f"out.{ending}"
    some = rows[:50]
    if ending == "jsonl":
        source.write_text("".join(json.dumps(row) + "\n" for row in some))
    else:
        source.write_text("group,user\n" + "".join(f"{row['group']},{row['user']}\n" for row in some))
    assert main(["score", str(source), str(output), "--model", "shop", "--store", str(place / "store")]) == 0
    lines = output.read_text().splitlines()
    if ending == "jsonl":
        scored = [json.loads(line)["prediction"] for line in lines]
    else:
        assert lines[0].startswith("line,items_0,items_1,")
        cells = [line.split(",")[1:] for line in lines[1:]]
        scored = [{"items": row[:K], "scores": [float(each) for each in row[K:]]} for row in cells]
    assert scored == answers[:50]


def test_a_hundred_thousand_items(tmp_path):
    """With a catalogue of 100,000 random vectors, int8 misses no item that is ahead by more than its rounding error."""
    section = TwoTowerModel(builder="two_tower", dimension=32, top_k=20)
    sizes = SimpleNamespace(user_sizes=[50, 5])
    random = np.random.default_rng(1)
    vectors = random.normal(size=(100_000, 32)).astype(np.float32)
    two_tower.seed_everything(0)
    plain = two_tower.published_model(two_tower._tower(section, sizes.user_sizes, two_tower.USERS), vectors, section)
    model = two_tower.with_int8_tables(plain, section, sizes)
    rows = np.stack([random.integers(50, size=8), random.integers(5, size=8)], axis=1).astype(np.int32)
    artifact = quantize(model, {"input": rows}, Quantize(scheme="dynamic")).artifact
    assert len(artifact) < 5_000_000  # 3.2 MB of codes, and a scale for each item
    found = Reference(artifact).run_real({"input": rows}, 1)
    users = model.get_layer(two_tower.USERS).predict(rows, verbose=0)
    exact = users.astype(np.float64) @ vectors.T.astype(np.float64)
    # A weight is off by half a step of its item's scale, a user's value by half a step of theirs.
    of_weights = np.abs(users).sum(axis=1)[:, None] * np.abs(vectors).max(axis=1) / 127 / 2
    spread = np.maximum(users.max(axis=1), 0) - np.minimum(users.min(axis=1), 0)
    of_users = spread[:, None] / 255 / 2 * (np.abs(vectors) * 1.01).sum(axis=1) * 2
    error = of_weights + of_users
    for row in range(len(rows)):
        items, scores = found["items"][row], found["scores"][row]
        assert (np.abs(scores - exact[row, items]) <= error[row, items]).all()
        surely = np.flatnonzero(exact[row] - error[row] > scores[-1] + 1e-6)
        assert {*surely} <= {*items.tolist()}


def test_a_recommender_of_chance_is_refused(place):
    """Untrained towers are no better than what is popular, and nothing is published."""
    with pytest.raises(GateError, match="no better than to answer every row with the most popular items: recall"):
        build(load_recipe(place / "shop.toml", ["train.epochs=0", "publish.name=chance"]), place / "store")
    assert not (place / "store" / "chance").exists()


def test_jax_is_refused_before_anything_is_trained(place, monkeypatch):
    """The operator for the best k needs a graph of one row, which is made of TensorFlow's alone."""
    monkeypatch.setattr("litelambda.commands.build.choose_backend", lambda chosen: chosen)
    with pytest.raises(TrainError, match="recommendations are trained on TensorFlow"):
        build(load_recipe(place / "shop.toml", ["train.backend=jax"]), place / "store")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.loss=mse", "train.loss = 'sampled_softmax' belong together"),
        ("data.task=regression", "belong together"),
        ("quantize.scheme=int8", "the 256 values of an int8 score cannot rank a catalogue"),
        ("data.normalize=0-1", "data.normalize: not for data.format = 'interactions'"),
        ("train.class_weights=balanced", "train.class_weights: not for recommendations"),
        ("compress.fold_batch_norm=true", "compress: is not for recommendations"),
    ],
)
def test_what_does_not_belong_to_it_is_refused(place, override, message):
    """A recipe of recommendations says what it has no use for before anything is read."""
    with pytest.raises(RecipeError) as raised:
        load_recipe(place / "shop.toml", [override])
    assert message in str(raised.value)
