"""``rs-embed models``."""

from __future__ import annotations

from rs_embed import describe_model, list_models, list_weights
from rs_embed.cli.options import Json
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import RsEmbedError


def models(json: Json = False) -> None:
    """List the installed models and their weights: licence, size, where they are.

    [dim]rs-embed models[/dim]
    """
    described = []
    for name in list_models():
        try:
            described.append(describe_model(name))
        except RsEmbedError as exc:
            described.append({"id": name, "aliases": [], "summary": f"broken: {exc}"})
    weights = list_weights()
    if json:
        shown = [{key: d[key] for key in ("id", "aliases", "summary")} for d in described]
        print_json([{**d, "weights": [w for w in weights if w["model"] == d["id"]]} for d in shown])
        return
    for description in described:
        aliases = f" (also {', '.join(description['aliases'])})" if description["aliases"] else ""
        echo(f"{description['id']}{aliases}: {description['summary']}")
        for w in (w for w in weights if w["model"] == description["id"]):
            place = "on disk" if w["on_disk"] else "not on disk"
            echo(f"  {w['id']}: {w['size']}")
            echo(f"    licence: {w['licence']}")
            echo(f"    {'no file' if w['where'] is None else place + ': ' + w['where']}")
