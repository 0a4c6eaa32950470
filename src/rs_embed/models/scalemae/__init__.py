"""ScaleMAE: description and options, network, checkpoints, and the rshf wrapper."""
