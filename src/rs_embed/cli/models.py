"""``rs-embed models``."""

from __future__ import annotations

from rs_embed import describe_model, list_models
from rs_embed.cli.options import Json
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import RsEmbedError


def models(json: Json = False) -> None:
    """List the installed models.

    [dim]rs-embed models[/dim]
    """
    described = []
    for name in list_models():
        try:
            described.append(describe_model(name))
        except RsEmbedError as exc:
            described.append({"id": name, "aliases": [], "summary": f"broken: {exc}"})
    if json:
        print_json([{key: d[key] for key in ("id", "aliases", "summary")} for d in described])
        return
    for description in described:
        aliases = f" (also {', '.join(description['aliases'])})" if description["aliases"] else ""
        echo(f"{description['id']}{aliases}: {description['summary']}")
