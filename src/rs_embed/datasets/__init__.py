"""Labelled and unlabelled sets of images."""

from rs_embed.datasets.samples import Sample as Sample
from rs_embed.datasets.samples import held_out as held_out
from rs_embed.datasets.samples import read_samples as read_samples
