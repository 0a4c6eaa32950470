"""Models: tensors in, tokens out. They know nothing of places, files or dates."""
