"""The monthly bill of each platform, side by side: quantities of a case times prices.

Every function takes a `Case` and returns a `Bill`. None knows which platform is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from litelambda.costs.bill_lines import (
    GB,
    SECONDS_PER_MONTH,
    UTILIZATION,
    Bill,
    Lines,
    around_aws,
    around_function,
    batch_on_lambda,
    behind_http_api,
    busy_share,
    function_lines,
    lambda_lines,
    load_balancer,
    machine_lines,
)
from litelambda.costs.case import Case, vcpu_share
from litelambda.costs.load import DAYS_PER_MONTH, HOURS_PER_MONTH, concurrency

__all__ = ["PLATFORMS", "Platform"]

_COOL_DOWN_S = 300.0
_TASK_SIZES = ((0.25, (0.5, 1, 2)), (0.5, (1, 2, 3, 4)), (1, (2, 3, 4, 5, 6, 7, 8)), (2, tuple(range(4, 17))))
_T4G_SMALL_VCPUS = 2


# Functions


def function_url(case: Case) -> Bill:
    """Lambda behind its own URL, which costs nothing."""
    return Bill((*function_lines(case), *around_function(case)))


def http_api(case: Case) -> Bill:
    """Lambda behind an HTTP API."""
    return Bill((*function_lines(case), *behind_http_api(case)))


def rest_api(case: Case) -> Bill:
    """Lambda behind a REST API."""
    lines = Lines(case)
    lines.add("REST API", "api.rest", case.load.requests)
    return Bill((*function_lines(case), *lines, *around_function(case)))


def provisioned(case: Case) -> Bill:
    """Lambda with as many environments kept initialized as the busiest hour needs, behind an HTTP API."""
    busy_ms = math.ceil(case.warm_ms / vcpu_share(case.memory_mb))
    count = concurrency(case.load.peak_rate, busy_ms / 1000)
    gb = case.memory_mb / 1024
    lines = Lines(case)
    lines.add("requests", "lambda.requests", case.load.requests, free_tier=False)
    lines.add("duration", f"lambda-provisioned.{case.architecture}", case.load.requests * busy_ms / 1000 * gb)
    lines.add("kept initialized", f"lambda-provisioned.kept-{case.architecture}", count * gb * SECONDS_PER_MONTH)
    lines += batch_on_lambda(case)
    note = f"{count} kept the whole month; Lambda's free tier does not apply"
    return Bill((*lines, *behind_http_api(case, starts=False)), (note,))


def snapstart(case: Case) -> Bill:
    """Lambda with environments restored from a snapshot, on the stock runtime client, behind an HTTP API."""
    gb = case.memory_mb / 1024
    duration_ms = math.ceil(case.stock_ms / vcpu_share(case.memory_mb))
    lines = Lines(case)
    lines += lambda_lines(
        case.prices,
        requests=case.load.requests,
        gb_seconds=case.load.requests * duration_ms / 1000 * gb,
        architecture=case.architecture,
        free_tier=case.free_tier,
    )
    lines.add("snapshot kept", "snapstart.cached", gb * SECONDS_PER_MONTH)
    lines.add("snapshots restored", "snapstart.restored", case.cold_starts * gb)
    lines += batch_on_lambda(case)
    note = "one published version; the time of a restore is not measured here, and not billed here"
    return Bill((*lines, *behind_http_api(case, starts=False)), (note,))


def managed_instances(case: Case) -> Bill:
    """Lambda on instances of EC2 in the account, behind an HTTP API."""
    count = max(3, math.ceil(case.peak_vcpus / (2 * UTILIZATION)))
    instance = case.prices["managed-instances.m7g-large"]
    lines = Lines(case)
    lines.add("requests", "lambda.requests", case.load.requests)
    lines.add("instances", instance.key, count * HOURS_PER_MONTH)
    lines.add("management", "managed-instances.fee", instance.cost(count * HOURS_PER_MONTH))
    note = f"{count} of m7g.large, three at least; the lean bootstrap has not been run there"
    return Bill((*lines, *behind_http_api(case, starts=False)), (note,))


def sagemaker_serverless(case: Case) -> Bill:
    """SageMaker Serverless Inference, whose endpoint callers invoke with signed requests."""
    memory_gb = min(max(math.ceil(_service_gb(case)), 1), 6)
    duration_ms = math.ceil(case.warm_ms / vcpu_share(memory_gb * 1024))
    sent = case.load.request_bytes + case.load.response_bytes
    lines = Lines(case)
    lines.add("compute", "sagemaker.compute", case.load.requests * duration_ms / 1000 * memory_gb)
    lines.add("data in and out", "sagemaker.data", case.load.requests * sent / GB)
    notes = [f"{memory_gb} GB, with Lambda's share of a vCPU for it; the start of its container is not measured here"]
    notes += ["batch rows are not billed: it has no batches"] if case.load.batch_rows else []
    return Bill((*lines, *around_aws(case)), tuple(notes))


# Containers and machines


def fargate(case: Case) -> Bill:
    """Tasks of ECS on Fargate behind a load balancer; ECS Express Mode makes the same."""
    vcpu, memory_gb = _task_size(_service_gb(case))
    tasks = max(2, _instances(case, vcpu))
    hours = tasks * HOURS_PER_MONTH + case.batch_vcpu_s / vcpu / 3600
    lines = Lines(case)
    lines.add("vCPUs", f"fargate.vcpu-{case.architecture}", hours * vcpu)
    lines.add("memory", f"fargate.memory-{case.architecture}", hours * memory_gb)
    note = f"{tasks} tasks of {vcpu:g} vCPU and {memory_gb:g} GB in public subnets, two at least"
    return Bill((*lines, *load_balancer(case, 2 + tasks), *around_aws(case)), (note,))


def app_runner(case: Case) -> Bill:
    """App Runner, which keeps memory for one instance, and bills its vCPU by the minute with requests in it."""
    vcpu, memory_gb = _task_size(_service_gb(case))
    active = sum(
        max(busy_share(rate, 60.0), rate * case.warm_ms / 1000 / (vcpu * UTILIZATION)) for rate in case.load.rates
    )
    active_hours = active * DAYS_PER_MONTH + case.batch_vcpu_s / vcpu / 3600
    extra_hours = sum(max(rate * case.warm_ms / 1000 / (vcpu * UTILIZATION) - 1, 0.0) for rate in case.load.rates)
    lines = Lines(case)
    lines.add("vCPUs while active", "app-runner.vcpu", active_hours * vcpu)
    lines.add("memory", "app-runner.memory", (HOURS_PER_MONTH + extra_hours * DAYS_PER_MONTH) * memory_gb)
    return Bill((*lines, *around_aws(case)), (f"instances of {vcpu:g} vCPU and {memory_gb:g} GB",))


def ec2(case: Case) -> Bill:
    """Small machines with an address each, and nothing in front."""
    count = _machines(case, 1)
    note = f"{count} of t4g.small" + (", without a second one to fall back on" if count == 1 else "")
    return Bill((*machine_lines(case, count), *around_aws(case)), (note,))


def ec2_balanced(case: Case) -> Bill:
    """Two or more small machines behind a load balancer."""
    count = _machines(case, 2)
    lines = [*machine_lines(case, count), *load_balancer(case, 2), *around_aws(case)]
    return Bill(tuple(lines), (f"{count} of t4g.small, two at least",))


# Other clouds


def cloud_run(case: Case) -> Bill:
    """Cloud Run with request-based billing: one vCPU while a request is under way, in steps of 100 ms."""
    memory_gb = max(math.ceil(_service_gb(case) * 2) / 2, 0.5)
    step_s = max(math.ceil(case.warm_ms / 100), 1) / 10
    busy = sum(max(busy_share(rate, step_s), rate * case.warm_ms / 1000 / UTILIZATION) for rate in case.load.rates)
    starts_s = case.load.cold_starts(step_s) * math.ceil(case.init_ms / 100) / 10
    seconds = busy * 3600 * DAYS_PER_MONTH + starts_s + case.batch_vcpu_s
    lines = Lines(case)
    lines.add("vCPUs", "cloud-run.vcpu", seconds)
    lines.add("memory", "cloud-run.memory", seconds * memory_gb)
    lines.add("requests", "cloud-run.requests", case.load.requests)
    lines.add("logs", "google-logs.ingested", case.load.requests * case.log_bytes / GB)
    lines.add("data out", "google-transfer.out", case.load.requests * case.load.response_bytes / GB)
    note = f"1 vCPU and {memory_gb:g} GiB; of its start only INIT is measured here"
    return Bill(tuple(lines), (note,))


def container_apps(case: Case) -> Bill:
    """Azure Container Apps, consumption plan: active by the second, then idle until it has no replica."""
    vcpu, memory_gb = _apps_size(_service_gb(case))
    second_s = max(1.0, case.warm_ms / vcpu / 1000)
    active = idle = 0.0
    for rate in case.load.rates:
        share = max(busy_share(rate, second_s), rate * case.warm_ms / 1000 / (vcpu * UTILIZATION))
        active += share
        idle += max(busy_share(rate, _COOL_DOWN_S) - share, 0.0)
    seconds = 3600 * DAYS_PER_MONTH
    batch_s = case.batch_vcpu_s / vcpu
    lines = Lines(case)
    lines.add("vCPUs, active", "container-apps.vcpu", (active * seconds + batch_s) * vcpu)
    lines.add("vCPUs, idle", "container-apps.vcpu-idle", idle * seconds * vcpu)
    lines.add("memory", "container-apps.memory", ((active + idle) * seconds + batch_s) * memory_gb)
    lines.add("requests", "container-apps.requests", case.load.requests)
    lines.add("logs", "azure-logs.ingested", case.load.requests * case.log_bytes / GB)
    lines.add("data out", "azure-transfer.out", case.load.requests * case.load.response_bytes / GB)
    note = f"replicas of {vcpu:g} vCPU and {memory_gb:g} GiB, gone {_COOL_DOWN_S:g} s after the last request"
    return Bill(tuple(lines), (note,))


@dataclass(frozen=True)
class Platform:
    """A way to run an artifact.

    Attributes:
        title: what people call it.
        bill: makes its bill.
        closed: why new customers cannot have it.
    """

    title: str
    bill: Callable[[Case], Bill]
    closed: str = ""


PLATFORMS = {
    "lambda-http-api": Platform("Lambda, HTTP API", http_api),
    "lambda-rest-api": Platform("Lambda, REST API", rest_api),
    "lambda-function-url": Platform("Lambda, function URL", function_url),
    "lambda-provisioned": Platform("Lambda, provisioned concurrency", provisioned),
    "lambda-snapstart": Platform("Lambda, SnapStart", snapstart),
    "lambda-managed-instances": Platform("Lambda Managed Instances", managed_instances),
    "sagemaker-serverless": Platform("SageMaker Serverless Inference", sagemaker_serverless),
    "fargate": Platform("Fargate, load balancer", fargate),
    "app-runner": Platform("App Runner", app_runner, "closed to new customers since 2026-04-30"),
    "ec2": Platform("EC2, one small machine", ec2),
    "ec2-balanced": Platform("EC2, load balancer", ec2_balanced),
    "cloud-run": Platform("Google Cloud Run", cloud_run),
    "container-apps": Platform("Azure Container Apps", container_apps),
}
"""Every platform by its name, in the order of the tables."""


# Sizes


def _machines(case: Case, least: int) -> int:
    return max(least, _instances(case, _T4G_SMALL_VCPUS))


def _instances(case: Case, vcpu: float) -> int:
    """Instances of so many vCPUs for the busiest hour."""
    return max(math.ceil(case.peak_vcpus / (vcpu * UTILIZATION)), 1)


def _service_gb(case: Case) -> float:
    """Memory of a container: what the function takes at its peak, half as much again, and an HTTP server."""
    return (case.profile.rss_mb * 1.5 + 64) / 1024


def _task_size(needed_gb: float) -> tuple[float, float]:
    """The smallest task of Fargate with so much memory; the largest of these where none has."""
    sizes = [(vcpu, memory) for vcpu, memories in _TASK_SIZES for memory in memories]
    return next((size for size in sizes if size[1] >= needed_gb), sizes[-1])


def _apps_size(needed_gb: float) -> tuple[float, float]:
    """The smallest replica of Container Apps: a quarter of a vCPU for each half GiB, up to 4 GiB."""
    quarters = min(max(math.ceil(needed_gb * 2), 1), 8)
    return quarters / 4, quarters / 2
