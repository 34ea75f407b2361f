"""The offline toolchain: train, compress, quantize, verify and publish; serve, score, package and measure."""

from litelambda_serving import __version__

__all__ = ["__version__"]
