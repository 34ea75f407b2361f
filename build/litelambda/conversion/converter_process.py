"""The converter's process, kept for the next conversion.

    python -m litelambda.conversion.converter_process

is the child.
"""

from __future__ import annotations

from litelambda.common.kept_process import KeptProcess, serve


class ConverterProcess(KeptProcess):
    """Runs lists of conversions, see `convert.run_jobs`."""

    def __init__(self) -> None:
        super().__init__("litelambda.conversion.converter_process")


def _main() -> None:
    from litelambda.conversion.converter import run_jobs

    serve(run_jobs)


if __name__ == "__main__":
    _main()
