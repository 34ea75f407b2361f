"""The stages of a build, a module each: data, train, compress, quantize, evaluate, verify, publish.

A stage takes what the stages before it made, as plain dataclasses, and knows nothing of the ones after it.
TensorFlow is imported by the functions that need it, never at a module's top.
"""
