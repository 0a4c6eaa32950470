"""STAC items one by one: what cannot be used is left out, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rs_embed.addresses import local_path, shown_path
from rs_embed.providers.scenes.scene import Scene, scene_from_item

if TYPE_CHECKING:
    from pystac import Item


def malformed() -> tuple[type[Exception], ...]:
    """Return what parsing raises for JSON that is not STAC."""
    from pystac import STACError, STACTypeError

    return (
        STACError, STACTypeError, KeyError, TypeError, ValueError, AttributeError, IndexError,
        OverflowError,
    )  # fmt: skip


def parsed_items(contents: Any, href: str | None, left_out: dict[str, str]) -> Iterator[Item]:
    """Yield the items of a page; ``href`` is where it is, to which relative hrefs refer.

    Without it the page is an answer of an API, whose items say where they are: on the web.
    """
    import pystac

    at = "" if href is None else shown_path(href)
    if not isinstance(contents, list):
        left_out[at or "an answer"] = f"has {type(contents).__name__} as items, expected a list"
        return
    for content in contents:
        try:
            item = pystac.Item.from_dict(content, href=href, migrate=False, preserve_dict=False)
            _check_names(item)
            if href is None and "://" not in local_path(item.get_self_href() or ""):
                item.set_self_href(None)
            yield item
        except malformed() as exc:
            name = content.get("id") if isinstance(content, dict) else None
            left_out[f"{at} ({name})" if at and name is not None else at or str(name)] = unusable(
                exc
            )


def _check_names(item: Item) -> None:
    for what, value in (("id", item.id), ("collection", item.collection_id)):
        if not isinstance(value, str) and (what == "id" or value is not None):
            raise TypeError(f"{what}={value!r}, expected text")


def usable_scenes(items: Iterable[Item], left_out: dict[str, str]) -> Iterator[Scene]:
    """Yield the scenes of the items."""
    for item in items:
        try:
            yield scene_from_item(item)
        except malformed() as exc:
            left_out[item.id] = unusable(exc)


def unusable(exc: Exception) -> str:
    """Return why an item is left out."""
    return f"is not a usable STAC item ({type(exc).__name__}: {exc})"
