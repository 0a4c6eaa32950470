"""Pretrain a ScaleMAE, or go on with one, on any imagery with a known GSD."""
