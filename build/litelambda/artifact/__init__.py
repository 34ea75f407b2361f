"""The artifact: a flatbuffer read, run by the reference Interpreter and the shipped runtime, and stored; no Keras."""
