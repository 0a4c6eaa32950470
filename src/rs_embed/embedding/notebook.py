"""What a notebook shows of a result: a picture, and what is known of it, as HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rs_embed.printable import html_table

if TYPE_CHECKING:
    from PIL import Image

SIDE_PX = 224


def as_html(title: str, meta: Mapping[str, Any], picture: Image.Image | None) -> str:
    """Return the HTML of a result: picture, model, place, date, GSD, validity, warnings.

    Parameters
    ----------
    title : str
        What it is.
    meta : mapping
        The meta of an embedding or an inspection.
    picture : PIL.Image.Image or None
        What is shown above the table.
    """
    shown = ""
    if picture is not None:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        shown = f'<img alt="{title}" src="data:image/png;base64,{data}">'
    return shown + html_table(title, dict(_rows(meta)))


def _rows(meta: Mapping[str, Any]) -> list[tuple[str, Any]]:
    source, place = meta.get("source") or {}, dict(meta.get("spatial") or {})
    grid, period = meta.get("grid") or {}, meta.get("temporal") or {}
    days = source.get("acquired")
    kind = place.pop("type", None)
    degrees = ", ".join(f"{name}={value:.10g}" for name, value in place.items())
    gsd = [f"{meta[key]:g} {what}" for key, what in _GSD if isinstance(meta.get(key), int | float)]
    shares = [f"{key.partition('_')[0]} {meta[key]:.1%}" for key in _SHARES if key in meta]
    rows = [
        ("model", ", weights ".join(filter(None, (meta.get("model"), meta.get("weights"))))),
        ("place", f"{kind}({degrees})" if kind else f"all of the imagery, {grid.get('crs')}"),
        ("imagery", source.get("path") or meta.get("backend")),
        ("date", " to ".join(dict.fromkeys(days)) if isinstance(days, list) else days),
        ("period", " up to ".join(period.values())),
        ("GSD", ", ".join(gsd)),
        ("seen", ", ".join(shares)),
        ("fingerprint", meta.get("fingerprint")),
        *((f"warning {n}", text) for n, text in enumerate(meta.get("warnings", ()), 1)),
    ]
    return [(name, value) for name, value in rows if value]


_GSD = (("used_scale_m", "m in the source"), ("input_res", "in the model"))
_SHARES = ("coverage", "valid_fraction")
