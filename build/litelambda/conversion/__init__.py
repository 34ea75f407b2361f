"""Conversion: a Keras model or SavedModel becomes a flatbuffer, quantized by the recipe's scheme."""
