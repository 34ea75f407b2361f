"""Which files of tests one worker of pytest-xdist runs, and in what order: the longest first, so that none ends late.

Left to itself it starts with the files that have the most tests, and ends with the few tests that take a minute each,
one core idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

TOGETHER = (
    # What `built_artifact` made, which takes a worker half a minute.
    (
        "integration/test_build.py",
        "integration/test_bench.py",
        "integration/test_build_proofs.py",
        "integration/test_compare.py",
        "integration/test_explain_gradients.py",
        "integration/test_tflite_runtime.py",
    ),
    # Both would make the runtime client's environment.
    ("e2e/test_rie.py", "e2e/test_score_rie.py"),
)
"""Files that share what is made once for each worker, or what only one may make at a time."""
LONGEST = (
    "e2e/test_stacks.py",
    "e2e/test_rie.py",
    "contract/test_perf_analyzer.py",
    "integration/test_jax.py",
    "integration/test_corpus_sequences.py",
    "unit/compression/test_compress.py",
    "integration/test_build.py",
    "e2e/test_pages.py",
    "e2e/test_tutorial.py",
    "integration/test_hosts.py",
    "e2e/test_score_mnist.py",
    "integration/test_corpus.py",
    "integration/test_corpus_layers.py",
    "unit/search/test_search.py",
    "unit/training/test_train.py",
    "integration/test_gates.py",
    "integration/test_recommendations.py",
    "integration/test_text_models.py",
    "integration/test_pictures_built.py",
    "integration/test_tables_served.py",
    "unit/conversion/test_converter.py",
    "unit/conversion/test_quantize.py",
    "integration/test_score_faults.py",
    "unit/commands/test_scoring_package.py",
    "unit/training/test_mixed_precision.py",
    "integration/test_import.py",
    "integration/test_import_served.py",
    "integration/test_devices.py",
    "unit/conversion/test_rewrites.py",
    "integration/test_build_int4.py",
)
"""Files of more than half a minute, the longest first; the others come after them in the order of their names."""
_SCOPES = {f"tests/{name}": f"tests/{group[0]}" for group in TOGETHER for name in group}
_PLACES = {f"tests/{name}": place for place, name in enumerate(LONGEST)}


class Scheduling(LoadScopeScheduling):
    """A file, or files that belong together, for each worker that is free."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """The file of a test, or the first of the files that it belongs to.

    >>> scope_of("tests/integration/test_build_proofs.py::test_what_was_compared_is_in_the_manifest")
    'tests/integration/test_build.py'
    """
    name = nodeid.partition("::")[0]
    return _SCOPES.get(name, name)


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests; those of a file, and of files that belong together, keep their order."""
    items.sort(key=lambda item: _PLACES.get(scope_of(item.nodeid), len(_PLACES)))


def make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """The scheduler of a run: in the order of `longest_first`, not by the number of tests."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)
