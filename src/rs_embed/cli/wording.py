"""Messages of the library, which names arguments, in the options of the command line."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import fields

from rs_embed import RsEmbedError, describe_model
from rs_embed.cli.options import DEFAULT_MODEL, OnePlace, Period, Pixels, Prep

# Arguments of commands that are in no group of options.
_OTHERS = (
    "output", "pooling", "device", "layer", "dtype", "pca", "order", "stride_px", "seams",
    "acquired", "overwrite", "polygons", "id_column",
    "base_map", "attribution", "port",
)  # fmt: skip
# What is one argument in Python and not an option.
_CALLS = (
    (re.compile(r"(?:fetch=)?FetchSpec\(([^()]*)\)"), r"\1"),
    (re.compile(r"fetch=\{'(\w+)': ([^{}]*)\}"), r"\1=\2"),
    (re.compile(r"OutputSpec\.(\w+)\(\)"), r"--output \1"),
    (re.compile(r"InputPrepSpec\.(\w+)\(\.\.\.\)"), r"--input-prep \1"),
    (re.compile(r"PointBuffer\(lon, lat, (buffer_m=\w+)\)"), r"--lon, --lat and \1"),
    (re.compile(r"\(PointBuffer or BBox\)"), "(--lon, --lat and --buffer-m, or --bbox)"),
    (re.compile(r"input_chw="), "--input"),
    (re.compile(r"LocalProvider\(root\)|backend=LocalProvider\(\.\.\.\)"), "--local"),
)
# What names both already.
_TWICE = re.compile(r"(--[a-z-]+) \(\1\)")
_ARGUMENT = re.compile(r"\b([a-z_]+)=('[^']*'|[\w.+-]*[\w+]|\.{3}|(?=[\s,;:)]|$))")


def as_options(message: str) -> str:
    """Return a message with ``--scale-m 120`` where it has ``scale_m=120``."""
    for call, words in _CALLS:
        message = call.sub(words, message)
    names = {field.name for group in (OnePlace, Period, Pixels, Prep) for field in fields(group)}
    with suppress(RsEmbedError):
        names.update(option["name"] for option in describe_model(DEFAULT_MODEL)["options"])

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in names.union(_OTHERS):
            return found[0]
        value = "" if value == "True" else value.strip("'")
        return f"--{name.replace('_', '-')} {value}".rstrip()

    return _TWICE.sub(r"\1", _ARGUMENT.sub(option, message))
