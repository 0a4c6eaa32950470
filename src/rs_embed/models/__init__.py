"""Models: tensors in, tokens out. They do not know about places or dates."""
