"""Batch scoring: rows streamed out of files, run in batches, predictions written once.

Loaded by the batch handler and by `litelambda score`, never on the way of a single prediction: numpy, orjson and
boto3, which a cold start has no time for, are used here.

    events       what an event asks for: jobs
    job          one input, one model, one output
    models       which version of which model is meant
    inputs       which version of which input is meant
    formats/     a module each: input rows in, predictions out
    running/     one job from its input to its committed output, on every core, or spread over many functions

Inputs are read and outputs are written through `litelambda_serving.objects`.
"""

import ctypes
import os

# The workers use the cores. BLAS's own threads, which numpy's long dot products start, would only take turns with them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_KEPT_BYTES = 32 * 1024 * 1024  # glibc takes no more


def _keep_memory() -> None:
    """Tell glibc to keep what is freed: chunks come and go, and each page that went is zeroed when it comes again."""
    malloc_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if malloc_option is not None:  # else it is another C library
        malloc_option(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        malloc_option(_M_TRIM_THRESHOLD, 2 * _LARGEST_KEPT_BYTES)


_keep_memory()
