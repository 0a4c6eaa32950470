"""``rs-embed classify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rs_embed.cli.options import Json, result_option
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import SpecError


def classify(
    training: Annotated[
        Path, typer.Argument(help="Table of `batch` with labels, or a saved classifier (.skops).")
    ],
    source: Annotated[Path, typer.Argument(metavar="MAP", help="Map of `map`: .zarr or .tif.")],
    out: Annotated[Path, result_option("--out", "-o", help="The .tif of classes to write.")],
    labels: Annotated[str | None, typer.Option(help="Column of the table with the class.")] = None,
    save: Annotated[
        Path | None, result_option(help="Keep the classifier for other maps, a .skops.")
    ] = None,
    mask_outside: Annotated[
        bool, result_option("--mask-outside", help="No class where the map is unlike the table.")
    ] = False,
    json: Json = False,
) -> None:
    """Classify the cells of a map as labelled places of a table.

    [dim]rs-embed classify fields.parquet map.zarr --labels cover -o classes.tif[/dim]

    Warns where the map is unlike the table, so that its classes are not to be trusted.
    """
    saved = training.suffix.lower() == ".skops"
    if saved == (labels is not None):
        raise SpecError("expected --labels for a table, and none for a saved classifier")
    from rs_embed import Classifier, fit_classifier

    classifier = Classifier.load(training) if saved else fit_classifier(training, labels)
    if save is not None:
        classifier.save(save)
    found = classifier.predict_map(source, out, mask_outside=mask_outside)
    cells = {name: int((found == code).sum()) for code, name in enumerate(classifier.classes)}
    if json:
        print_json({"file": str(out), "classifier": save and str(save), "cells": cells})
        return
    for name, count in cells.items():
        echo(f"{count} cells {name}")
    for path in (save, out):
        if path is not None:
            echo(f"wrote {path}")
