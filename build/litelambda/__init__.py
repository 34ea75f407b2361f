"""The offline toolchain: train, compress, quantize, verify and publish; serve, score, package and measure."""

__version__ = "0.1.0"
