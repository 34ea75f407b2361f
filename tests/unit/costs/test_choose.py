"""The five questions: what is ranked, what is not, what is excluded and by which limit, and where it all stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from litelambda.costs.bills import PLATFORMS
from litelambda.costs.choose import QUESTIONS, Choice, make_choice
from litelambda.costs.choose_output import describe, to_json, to_markdown
from litelambda.costs.limits import load_facts
from litelambda.costs.load import SHAPES, Load
from support.costs import PROFILE, make_case

TODAY = date(2026, 10, 2)


@pytest.fixture(scope="module")
def choice() -> Choice:
    """Of the artifact of round numbers, under three million requests a month."""
    return make_choice(make_case(), today=TODAY)


def test_every_answer_of_every_platform_is_there(choice: Choice) -> None:
    """Each with where it stands, but what was not measured."""
    assert choice.candidates.keys() == PLATFORMS.keys() == load_facts().keys() - {"lambda"}
    for candidate in choice.candidates.values():
        assert candidate.answers.keys() == set(QUESTIONS)
        for answer in candidate.answers.values():
            assert answer.text == "not measured here" or answer.sources


def test_only_what_was_measured_is_ranked_by_performance(choice: Choice) -> None:
    """Environments that are kept come first, the doors of one function share a rank, and others have none."""
    ranks = {name: each.answers["performance"].rank for name, each in choice.candidates.items()}
    assert {name: rank for name, rank in ranks.items() if rank} == {
        "lambda-provisioned": 1, "lambda-http-api": 2, "lambda-rest-api": 2, "lambda-function-url": 2,
    }  # fmt: skip
    assert choice.candidates["fargate"].answers["performance"].text == "not measured here"
    whole = choice.candidates["lambda-http-api"].answers["performance"]
    assert whole.text == "warm 2 ms, p99 4, cold 105; 500 per second and environment"


def test_prices_rank_only_platforms_that_take_the_load(choice: Choice) -> None:
    """App Runner is closed to new customers: it has a bill, and no rank."""
    ranks = [each.answers["price"].rank for each in choice.candidates.values()]
    assert ranks[:-1] == list(range(1, len(PLATFORMS)))
    assert list(choice.candidates)[-1] == "app-runner"
    assert choice.candidates["app-runner"].excluded == ("closed to new customers since 2026-04-30",)


def excluded(load: dict[str, Any], **profile: Any) -> dict[str, str]:
    """Why platforms do not take a load, without the one that no load changes."""
    case = make_case()
    case = replace(case, load=replace(case.load, **load), profile=replace(PROFILE, **profile))
    found = make_choice(case, today=TODAY).candidates
    return {name: each.excluded[-1] for name, each in found.items() if each.excluded and name != "app-runner"}


def test_a_load_beyond_a_limit_excludes_a_platform_by_it() -> None:
    """The limit is named, and what the load needs."""
    functions = {name for name in PLATFORMS if name.startswith("lambda-")}
    by_size = excluded({"request_bytes": 7_000_000})
    assert by_size.keys() == functions | {"sagemaker-serverless"}
    said = "a request is 6,291,456 bytes at most, and this load needs 7,000,000 bytes"
    assert {by_size[name] for name in functions} == {said}
    slow = excluded({}, init=replace(PROFILE.init, worst_ms=100_000.0))
    assert slow["lambda-http-api"] == "a request takes 30 s at most, and this load needs 100 s"
    assert "lambda-function-url" not in slow
    large = excluded({}, rss_mb=5000.0)
    assert large == {name: f"memory is {mb} MB at most, and this load needs 6,250 MB" for name, mb in LARGE.items()}


LARGE = {"sagemaker-serverless": "6,144", "ec2": "1,536", "ec2-balanced": "1,536"}


def test_a_quota_that_support_raises_is_no_exclusion() -> None:
    """It has to be raised first, which is said."""
    case = replace(make_case(), load=Load(5e10, SHAPES["peak"], 2048, 1024, cold_share=0.0))
    found = make_choice(case, today=TODAY).candidates["lambda-http-api"]
    assert found.excluded == ()
    said = found.answers["scalability"].text
    assert "raise the quota: a second has 10,000 requests at most" in said


def test_a_terminal_markdown_and_json_say_the_same(choice: Choice) -> None:
    """The same answers, each with numbered sources and their dates."""
    text, markdown, document = describe(choice), to_markdown(choice), to_json(choice)
    assert document["platforms"]["lambda-http-api"]["support"]["sources"] == [
        {
            "page": "https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html",
            "read": "2026-07-25",
            "unverified": False,
        }
    ]
    for shown in (text, markdown):
        assert "Python 3.13 until 2029-06-30" in shown
        assert "https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html, read 2026-07-25" in shown
        assert "serverless-endpoints.html, unverified" in shown
        assert "App Runner" in shown.partition("xcluded")[2]
    rows = [line for line in markdown.splitlines() if line.startswith("| **")]
    assert len(rows) == len(PLATFORMS) - 1
    assert {row.count(" | ") for row in rows} == {len(QUESTIONS)}
