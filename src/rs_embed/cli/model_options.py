"""Options of the commands that the installed models declare."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from rs_embed import RsEmbedError, describe_model, list_models
from rs_embed.cli.options import DEFAULT_MODEL, MODEL_PREFIX

# Flags of the commands that are not the names of their parameters.
_RESERVED = {"help", "input"}
_KINDS: dict[str, type] = {"integer": int, "number": float, "flag": bool}


class Commands(TyperGroup):
    """Commands that get the options of the installed models when they run, not before."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command's name, the command with all of its options, and its arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        complete = getattr(command and command.callback, "complete", None)
        if complete is not None:
            alone = typer.Typer(rich_markup_mode="rich", add_completion=False)
            alone.command(name)(complete(model_parameters))
            command = typer.main.get_command(alone)
        return name, command, rest


def model_parameters(taken: set[str]) -> Iterator[inspect.Parameter]:
    """Yield an option for each name that models declare and the command does not use itself."""
    declared: dict[str, dict[str, dict[str, Any]]] = {}
    for description in _descriptions():
        for option in description["options"]:
            if option["name"].isidentifier() and option["name"] not in taken | _RESERVED:
                declared.setdefault(option["name"], {})[description["id"]] = option
    for name, options in declared.items():
        types = {option["type"] for option in options.values()}
        choices = list(dict.fromkeys(c for option in options.values() for c in option["choices"]))
        kind = str if choices else _KINDS.get("".join(types), str)
        words = [*choices, *(word.upper() for word in sorted(types - {""}))]
        flag = f"--{name.replace('_', '-')}"
        shown = typer.Option(
            f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
            help=_help(options),
            metavar="|".join(words) if choices and "string" not in types else None,
            show_default=next(iter(options.values()))["default"],
            rich_help_panel="Model",
        )
        yield inspect.Parameter(
            MODEL_PREFIX + name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, shown],
        )


def _descriptions() -> Iterator[dict[str, Any]]:
    """Yield the descriptions of the installed models, `DEFAULT_MODEL` first."""
    for name in sorted(list_models(), key=lambda name: (name != DEFAULT_MODEL, name)):
        with suppress(RsEmbedError):  # a broken package: using its model says what is wrong
            yield describe_model(name)


def _help(options: Mapping[str, dict[str, Any]]) -> str:
    """Return the help of an option, given what each model that has it declares."""
    models: dict[str, list[str]] = {}
    for model, option in options.items():
        models.setdefault(option["effect"], []).append(model)
    parts = [
        effect if DEFAULT_MODEL in names else f"{effect} (model {', '.join(names)})"
        for effect, names in models.items()
    ]
    return escape(" ".join(parts))
