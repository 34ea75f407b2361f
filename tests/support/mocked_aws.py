"""moto's AWS in this process. Each use begins a session of botocore's, and all sessions share what is slow to read.

botocore parses a service's description, a megabyte for S3, once for each session; no test changes one.
"""

from __future__ import annotations

import functools

import botocore.session
from botocore.loaders import Loader, create_loader
from moto import mock_aws

__all__ = ["mock_aws"]

_shared = functools.cache(create_loader)


def _share_loader(search_path: str | None = None) -> Loader:
    loader = _shared(search_path)
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)  # each session of boto3 appends its own folder
    return loader


botocore.session.create_loader = _share_loader
