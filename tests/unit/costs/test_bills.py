"""Bills, against bills that were worked out by hand: quantities and prices are written out, step by step.

The artifact takes 2 ms per request on a whole vCPU (3 ms on the stock client), INIT 100 ms, the first request 5 ms,
100 MB of memory and 10 MiB in the store. Unless a bill says otherwise: 3,000,000 requests of 2,048 bytes a month,
evenly, 1 % of them cold, with answers of 1,024 bytes, and a function of 512 MB on arm64. A month has 730 hours, or
2,628,000 seconds, and so 1.141553 requests per second.

What surrounds a function (F), in USD: of each request it has a line of 300 bytes in the log, and Lambda 400 bytes
    data out      3,000,000 x 1,024 / 2^30 = 2.861023 GB x 0.09 = 0.257492
    logs          3,000,000 x 700 / 2^30 = 1.955777 GB x (0.50 + 0.03) = 1.036562
    metrics       1 x 0.30 = 0.30
    store         10 / 1024 GB x 0.023 = 0.000225
    F             1.594279, and 90,000 objects for cold starts x 0.40 / 1,000,000 = 0.036 where INIT reads the store
What surrounds a function behind an HTTP API (FA): as F, and the API's log has 400 bytes of each request
    logs          3,000,000 x 1,100 / 2^30 = 3.073364 GB x 0.53 = 1.628883
    FA            0.257492 + 1.628883 + 0.30 + 0.000225 = 2.186600
What surrounds a container on AWS (C): as F, with 300 bytes of logs per request
    logs          0.838190 GB x 0.53 = 0.444241
    C             0.257492 + 0.444241 + 0.30 + 0.000225 = 1.001958
"""

from __future__ import annotations

from typing import Any

import pytest

from litelambda.common.errors import UsageError
from litelambda.costs.bill_lines import lambda_lines
from litelambda.costs.bills import PLATFORMS
from litelambda.costs.prices import load_prices
from support.costs import make_case

WITHIN = 0.01

# A request takes 2 ms x 1,769 / 512 = 6.91 ms, billed as 7; a cold one 100 + 5 x 1,769 / 512 = 117.3 ms, billed as 118:
# (2,970,000 x 7 + 30,000 x 118) ms = 24,330 s x 0.5 GB = 12,165 GB-s, x 0.0000133334 = 0.162201; requests 3 x 0.20
# = 0.60
BILLS: list[tuple[str, str, dict[str, Any], float]] = [
    # 0.60 + 0.162201 + F 1.594279 + 0.036
    ("function URL", "lambda-function-url", {}, 2.392480),
    # 0.60 + 0.162201 + 3 x 1.00 + FA 2.186600 + 0.036
    ("HTTP API", "lambda-http-api", {}, 5.984801),
    # the same, with 12,165 GB-s x 0.0000166667 = 0.202750 instead of 0.162201
    ("HTTP API on x86_64", "lambda-http-api", {"architecture": "x86_64"}, 6.025350),
    # 1,769 MB: 2 ms and 105 ms, (2,970,000 x 2 + 30,000 x 105) ms = 9,090 s x 1.727539 GB = 15,703.33 GB-s
    # x 0.0000133334 = 0.209379; 0.60 + 0.209379 + 3 + 2.186600 + 0.036
    ("HTTP API with a whole vCPU", "lambda-http-api", {"memory_mb": 1769}, 6.031979),
    # requests 2 x 0.20 = 0.40 beyond 1,000,000; duration 0, being less than 400,000 GB-s; API 3; data out 0, being less
    # than 100 GB; logs 0, being less than 5 GB, kept 3.073364 x 0.03 = 0.092201; metrics 0, being less than 10;
    # store 0.000225 + 0.036
    ("HTTP API in the free tier", "lambda-http-api", {"free_tier": True}, 3.528426),
    # a body of 700,000 bytes is two parts of 512 KB: API 6 instead of 3
    ("HTTP API with large bodies", "lambda-http-api", {"request_bytes": 700_000}, 8.984801),
    # 100,000,000 rows / 50,000 per s = 2,000 s x 1,769 / 1,024 GB = 3,455.08 GB-s x 0.0000133334 = 0.046068 more
    ("HTTP API and batches", "lambda-http-api", {"batch_rows": 100_000_000}, 6.030869),
    # 0.60 + 0.162201 + 3 x 3.50 + F 1.594279 + 0.036; the template's REST API has no log of its own
    ("REST API", "lambda-rest-api", {}, 12.892480),
    # 1.141553 x 0.007 = 0.008 requests at once: one environment. requests 0.60; 3,000,000 x 7 ms x 0.5 GB = 10,500 GB-s
    # x 0.0000077778 = 0.081667; kept 0.5 GB x 2,628,000 s x 0.0000033334 = 4.380088; API 3; FA
    ("provisioned concurrency", "lambda-provisioned", {}, 10.248355),
    # 3 ms x 1,769 / 512 = 10.4 ms, billed as 11: 16,500 GB-s x 0.0000133334 = 0.220001; requests 0.60; kept
    # 0.5 GB x 2,628,000 s x 0.0000015046 = 1.977044; restored 30,000 x 0.5 GB x 0.0001397998 = 2.096997; API 3; FA
    ("SnapStart", "lambda-snapstart", {}, 10.080642),
    # three instances x 730 h x 0.0816 = 178.704, and 15 % = 26.8056; requests 0.60; API 3; FA
    ("Managed Instances", "lambda-managed-instances", {}, 211.296200),
    # (100 MB x 1.5 + 64) -> 1 GB: 2 ms x 1,769 / 1,024 = 3.5 ms, billed as 4: 12,000 GB-s x 0.00002 = 0.24;
    # data 3,000,000 x 3,072 / 2^30 = 8.583069 GB x 0.016 = 0.137329; C 1.001958
    ("SageMaker Serverless", "sagemaker-serverless", {}, 1.379287),
    # two tasks of 0.25 vCPU and 0.5 GB: 365 vCPU-h x 0.03238 = 11.8187, 730 GB-h x 0.00356 = 2.5988; balancer
    # 730 x 0.0225 = 16.425; units 1.141553 / 25 = 0.045662 x 730 x 0.008 = 0.266667; addresses 4 x 730 x 0.005 = 14.60;
    # C 1.001958
    ("Fargate", "fargate", {}, 46.711125),
    # 365 x 0.04048 = 14.7752, 730 x 0.004445 = 3.24485; the rest is the same
    ("Fargate on x86_64", "fargate", {"architecture": "x86_64"}, 50.313675),
    # 300,000,000 requests from 9 to 17 o'clock: 300e6 / 30.416667 x 0.9 / 8 / 3600 = 308.22 per s x 2 ms = 0.616 vCPUs,
    # / (0.25 x 0.6) = 4.1: five tasks. 912.5 vCPU-h x 0.03238 = 29.54675; 1,825 GB-h x 0.00356 = 6.497; 16.425; units
    # (8 h x 308.22 + 16 h x 17.1233) / 25 = 109.589 a day x 30.416667 x 0.008 = 26.666667; addresses 7 x 3.65 = 25.55;
    # data out 286.102295 GB x 0.09 = 25.749207; logs 83.819032 GB x 0.53 = 44.424087; metrics 0.30; store 0.000225
    ("Fargate in office hours", "fargate", {"requests": 300_000_000, "shape": "office"}, 175.158936),
    # a request in every minute: 730 h x 0.25 vCPU x 0.064 = 11.68; memory 730 h x 0.5 GB x 0.007 = 2.555; C 1.001958
    ("App Runner", "app-runner", {}, 15.236958),
    # 730 x 0.0168 = 12.264; disk 8 x 0.08 = 0.64; address 730 x 0.005 = 3.65; C 1.001958
    ("EC2", "ec2", {}, 17.555958),
    # 600,000,000 x 2 ms / 2,628,000 s = 0.456621 vCPUs: 0.056621 beyond 0.4, x 730 h x 0.04 = 1.653333; 12.264 + 0.64
    # + 3.65; data out 572.20459 GB x 0.09 = 51.498413; logs 167.638063 GB x 0.53 = 88.848174; 0.30 + 0.000225
    ("EC2 beyond its baseline", "ec2", {"requests": 600_000_000}, 158.854145),
    # two machines 24.528 + 1.28 + 7.30; balancer 16.425 + 0.266667; its two addresses 7.30; C 1.001958
    ("EC2 behind a balancer", "ec2-balanced", {}, 58.101625),
    # a request within a step of 100 ms: 1 - e^-0.1141553 = 0.107881 of 2,628,000 s = 283,510 s, and 30,000 starts of
    # 100 ms = 3,000 s: 286,510 s x 0.000024 = 6.876243, x 0.5 GiB x 0.0000025 = 0.358138; requests 3 x 0.40 = 1.20;
    # logs 0.838190 x 0.50 = 0.419095; data out 2.861023 x 0.12 = 0.343323
    ("Cloud Run", "cloud-run", {}, 9.196799),
    # a request within a second: 1 - e^-1.1415525 = 0.680677 of 657,000 vCPU-s = 447,205 x 0.000034 = 15.204963; idle
    # 209,795 x 0.000004 = 0.839181; memory 2,628,000 s x 0.5 GiB x 0.000004 = 5.256; requests 1.20; logs
    # 0.838190 x 2.30 = 1.927838; data out 2.861023 x 0.087 = 0.248909
    ("Container Apps", "container-apps", {}, 24.676891),
]


@pytest.mark.parametrize(("platform", "case", "usd"), [row[1:] for row in BILLS], ids=[row[0] for row in BILLS])
def test_a_bill_is_what_was_worked_out_by_hand(platform: str, case: dict[str, Any], usd: float) -> None:
    """Each platform's bill is within 1 % of the one that is worked out in a comment above."""
    assert PLATFORMS[platform].bill(make_case(**case)).usd == pytest.approx(usd, rel=WITHIN)


def test_every_platform_was_worked_out() -> None:
    """No platform has a bill that no one has checked, and twenty bills are."""
    assert {row[1] for row in BILLS} == PLATFORMS.keys()
    assert len(BILLS) >= 20


@pytest.mark.parametrize(
    ("architecture", "requests", "gb_seconds", "usd"),
    [
        ("arm64", 3_000_000, 12_165, 0.762201),  # 0.60 + 12,165 x 0.0000133334
        ("x86_64", 3_000_000, 12_165, 0.802750),  # 0.60 + 12,165 x 0.0000166667
        # 200 + 7.5e9 x 0.0000133334 = 100,000.50 + 2.5e9 x 0.0000120001 = 30,000.25
        ("arm64", 1_000_000_000, 10_000_000_000, 130_200.75),
    ],
)
def test_lambda_bills_what_was_counted(architecture: str, requests: float, gb_seconds: float, usd: float) -> None:
    """Invocations and GB-seconds out of a log or CloudWatch have a price, in its tiers."""
    lines = lambda_lines(load_prices(), requests=requests, gb_seconds=gb_seconds, architecture=architecture)
    assert sum(line.usd for line in lines) == pytest.approx(usd, rel=1e-6)


def test_a_bill_has_a_range() -> None:
    """At worst each request takes its 99th percentile: 4 ms x 1,769 / 512, billed as 14 ms, and 148 ms cold."""
    low, case, high = (PLATFORMS["lambda-function-url"].bill(make_case().bounded(bound)).usd for bound in (-1, 0, 1))
    # (2,970,000 x 14 + 30,000 x 148) ms = 46,020 s x 0.5 GB x 0.0000133334 = 0.306802, instead of 0.162201
    assert high - case == pytest.approx(0.306802 - 0.162201, rel=WITHIN)
    assert low == case  # the cold share is given


def test_a_batch_needs_its_measurement() -> None:
    """Rows that no one has timed are not billed as if they were free."""
    from dataclasses import replace

    from support.costs import PROFILE

    case = make_case(batch_rows=1)
    with pytest.raises(UsageError, match="--batch-rows needs rows per second: add --bench FILE"):
        replace(case, profile=replace(PROFILE, rows_per_s=None))
