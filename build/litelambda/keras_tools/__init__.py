"""What Keras does not offer: late imports of a backend, the graph of a model, layers by kind, copies, made rows."""
