"""The artifact: a flatbuffer read, run in the reference Interpreter and in the shipped runtime, and stored. Knows no Keras."""
