"""What Keras does not offer: late imports of a backend, layers by kind, chains of layers, copies, output names."""
