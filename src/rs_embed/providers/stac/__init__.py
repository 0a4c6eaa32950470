"""Imagery of STAC catalogues."""
