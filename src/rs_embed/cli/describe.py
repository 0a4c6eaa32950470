"""``rs-embed describe``."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from rs_embed import describe_model
from rs_embed.cli.options import DEFAULT_MODEL, Json, ModelName
from rs_embed.cli.printing import print_json


def describe(model: ModelName = DEFAULT_MODEL, json: Json = False) -> None:
    """Show the input, output, options and weights of a model, without loading it.

    [dim]rs-embed describe scalemae --json[/dim]
    """
    description = describe_model(model)
    if json:
        print_json(description)
        return
    console = Console(highlight=False)
    console.print(f"[bold]{description['id']}[/bold]: {description['summary']}")
    console.print(description["publication"])
    _print_table(
        console, "Input", ("", ""), [(k, _text(v)) for k, v in description["inputs"].items()]
    )
    outputs = [(k, ", ".join(v) or "-") for k, v in description["outputs"].items()]
    preps, devices = (", ".join(description[key]) for key in ("input_preps", "devices"))
    rows: list[tuple[str, ...]] = [*outputs, ("input_prep", preps), ("device", devices)]
    _print_table(console, "Outputs (poolings), input preparations, devices", ("", ""), rows)
    _print_table(
        console,
        "Options (keyword arguments in Python, --name on the command line)",
        ("option", "default", "choices", "effect"),
        [(o["name"], o["default"], _choices(o), o["effect"]) for o in description["options"]],
    )
    _print_table(
        console,
        "Environment variables",
        ("variable", "default", "effect"),
        [(v["name"], v["default"], v["effect"]) for v in description["environment"]],
    )
    _print_table(
        console,
        "Weights",
        ("id", "licence", "size"),
        [(w["id"], w["licence"], w["size"]) for w in description["weights"]],
    )


def _print_table(
    console: Console, title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]
) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _choices(option: dict[str, Any]) -> str:
    values = f"{option['type']}, multiple of {option['multiple_of']}".removesuffix(", multiple of ")
    return ", ".join([*option["choices"], *([values] if option["type"] else [])])


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
