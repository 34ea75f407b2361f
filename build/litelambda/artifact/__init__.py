"""The artifact: a flatbuffer read, run by the reference Interpreter and by what ships, and stored. Knows no Keras."""
