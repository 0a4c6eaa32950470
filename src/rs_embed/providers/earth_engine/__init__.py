"""Imagery of Google Earth Engine."""
