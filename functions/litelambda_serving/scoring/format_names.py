"""The formats of inputs and outputs by name, and which one a key's ending stands for."""

from __future__ import annotations

__all__ = ["ENDINGS", "INPUT_FORMATS", "OUTPUT_FORMATS", "input_format_of", "is_image"]

INPUT_FORMATS = ("jsonl", "csv", "parquet", "npy", "npz", "images")
OUTPUT_FORMATS = ("jsonl", "csv", "npy")

ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".npy": "npy",
    ".npz": "npz",
    ".png": "images",
    ".jpg": "images",
    ".jpeg": "images",
    ".webp": "images",
    ".gif": "images",
    ".bmp": "images",
}


def input_format_of(url: str) -> str:
    """The input format that a key's ending names, "" for none; a prefix (ending with a slash) is one of images.

    >>> input_format_of("s3://bucket/rows.JSONL.gz")
    'jsonl'
    >>> input_format_of("s3://bucket/pictures/")
    'images'
    """
    if url.endswith("/"):
        return "images"
    name = url.lower().removesuffix(".gz")
    return next((format_name for ending, format_name in ENDINGS.items() if name.endswith(ending)), "")


def is_image(url: str) -> bool:
    """Whether an object is a row of a prefix of images: its ending says so, and it is not a folder's marker."""
    return not url.endswith("/") and input_format_of(url) == "images"
