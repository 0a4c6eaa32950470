"""STAC catalogues: presets by name, APIs that are searched, static catalogues that are walked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rs_embed.addresses import linked_path, local_path, shown_path
from rs_embed.errors import ProviderError
from rs_embed.parallel.pipeline import ordered
from rs_embed.providers.scenes.items import malformed, parsed_items
from rs_embed.providers.scenes.scene import Box, asset_path
from rs_embed.providers.stac.web import PageInsteadError, asking, read_json
from rs_embed.specs import TemporalSpec

if TYPE_CHECKING:
    from pystac import Item
    from pystac_client import ItemSearch
    from pystac_client.stac_api_io import StacApiIO

# Items per page of a search, which both presets allow.
_PAGE = 100
# Items of one search: far more than decades of one place, far fewer than endless pages.
_MOST_ITEMS = 10_000
_MOST_STALE = 3
_WALKERS = 8


@dataclass(frozen=True)
class Address:
    """Where a catalogue is.

    Parameters
    ----------
    url : str
        URL or path of an API's landing page, or of a static Catalog, Collection, ItemCollection or
        Item.
    sas_url : str or None
        URL below which ``/token/{collection}`` returns the token that signs the hrefs of items;
        None for hrefs that need none.
    """

    url: str
    sas_url: str | None = None

    @property
    def shown(self) -> str:
        """The URL without credentials."""
        return shown_path(self.url)


PRESETS = {
    "earth-search": Address("https://earth-search.aws.element84.com/v1"),
    "planetary-computer": Address(
        "https://planetarycomputer.microsoft.com/api/stac/v1",
        "https://planetarycomputer.microsoft.com/api/sas/v1",
    ),
}


def address_of(catalogue: str | os.PathLike[str] | Address) -> Address:
    """Return the address of a preset, a URL or a path.

    Raises
    ------
    ProviderError
        If it is none of them.
    """
    if isinstance(catalogue, Address):
        return catalogue
    name = os.fspath(catalogue)
    if name in PRESETS:
        return PRESETS[name]
    if name.lower().startswith(("http://", "https://")):
        return Address(name)
    path = os.path.expanduser(local_path(name))
    if os.path.isfile(path):
        return Address(os.path.abspath(path))
    raise ProviderError(
        f"got the STAC catalogue {shown_path(name)!r}, expected {', '.join(PRESETS)}, an http(s) "
        "URL, or the path of a catalog.json, collection.json or ItemCollection"
    )


def open_catalogue(address: Address, io: StacApiIO) -> Catalogue:
    """Return the catalogue at an address, having read its first page.

    Raises
    ------
    ProviderError
        If it cannot be read or is not STAC.
    """
    page = read_json(io, address.url)
    kind = _type_of(page)
    if kind not in ("Catalog", "Collection", "Feature", "FeatureCollection"):
        raise _not_stac(address.url, f"type {kind!r}")
    links = _links(page, address.url)
    if kind == "Catalog" and any(rel == "search" for rel, _, _ in links):
        return _Api(address, io, links)
    return _Static(address, io, page)


class _Api:
    """A STAC API.

    Its methods, and those of `_Static`, raise `ProviderError` if a request fails, or the answer is
    not STAC.
    """

    def __init__(self, address: Address, io: StacApiIO, links: Sequence[_Link]) -> None:
        self._url = address.url.rstrip("/")
        self._io = io
        searches = {method: href for rel, href, method in links if rel == "search"}
        # Long parameters fit into a body, not always into a URL.
        self._method = "POST" if "POST" in searches else "GET"
        self._search = searches.get(self._method) or next(iter(searches.values()))
        data = (href for rel, href, _ in links if rel == "data")
        self._collections = next(data, f"{self._url}/collections")

    def collection_ids(self) -> Sequence[str]:
        """Return the ids of its collections."""
        with asking(self._collections), _stac(self._collections):
            pages = self._io.get_pages(self._collections)
            return [str(found["id"]) for page in pages for found in page["collections"]]

    def has(self, collection: str) -> bool:
        """Return whether it has a collection of that id."""
        href = f"{self._collections}/{quote(collection, safe='')}"
        try:
            page = read_json(self._io, href)
        except ProviderError as exc:
            if getattr(exc.__cause__, "status_code", None) == 404:
                return False
            raise
        with _stac(href):
            return bool(page["id"] == collection)

    def items(
        self,
        collection: str | None,
        boxes: Sequence[Box] | None = None,
        period: TemporalSpec | None = None,
        most: int | None = None,
    ) -> tuple[list[Item], dict[str, str]]:
        """Return the items of a collection (None: all), at least those at a place and time.

        The mapping names what cannot be used -> reason.
        """
        from pystac_client import ItemSearch

        # A bare date would mean its whole day. The end is included here, and left out later.
        when = None if period is None else f"{period.start}T00:00:00Z/{period.end}T00:00:00Z"
        found: dict[tuple[str | None, str], Item] = {}
        left_out: dict[str, str] = {}
        for box in boxes or (None,):
            search = ItemSearch(
                self._search,
                method=self._method,
                stac_io=self._io,
                collections=None if collection is None else [collection],
                bbox=box,
                datetime=when,
                limit=_PAGE if most is None else most,
                max_items=most,
            )
            with asking(self._search), _stac(self._search):
                for contents in self._pages(search):
                    for item in parsed_items(contents, None, left_out):
                        found.setdefault((item.collection_id, item.id), item)
            if most is not None and len(found) >= most:
                break
        return list(found.values()), left_out

    def files(self) -> set[str]:
        """Return the paths and URLs of the files of a static catalogue."""
        return set()

    def _pages(self, search: ItemSearch) -> Iterator[list[Any]]:
        """Yield the items of each page of a search; raise if the pages do not end."""
        seen: set[str] = set()
        stale = 0  # pages in a row without a new item, which some servers have among others
        for page in search.pages_as_dicts():
            contents = page["features"]
            names = {str(dict(content).get("id")) for content in contents}
            stale = stale + 1 if names <= seen else 0
            if stale > _MOST_STALE:
                raise ProviderError(
                    f"{shown_path(self._search)!r} returned no new items on {stale} pages after "
                    f"{len(seen)} items, expected new items or the last page; use another catalogue"
                )
            seen |= names
            if len(seen) > _MOST_ITEMS:
                raise ProviderError(
                    f"{shown_path(self._search)!r} returned more than {_MOST_ITEMS} items for one "
                    "place; choose a shorter period"
                )
            yield contents


class _Static:
    """A catalogue of files, read completely when first needed."""

    def __init__(self, address: Address, io: StacApiIO, page: dict[str, Any]) -> None:
        self._url = address.url
        self._io = io
        self._page = page
        self._left_out: dict[str, str] = {}
        self._read_from = {self._url}

    def collection_ids(self) -> Sequence[str]:
        return sorted({item.collection_id for item in self._all if item.collection_id is not None})

    def has(self, collection: str) -> bool:
        return collection in self.collection_ids()

    def items(
        self,
        collection: str | None,
        *_: object,  # place, time and limit, which a file cannot apply
        **__: object,
    ) -> tuple[list[Item], dict[str, str]]:
        found = [i for i in self._all if collection is None or i.collection_id == collection]
        return found, dict(self._left_out)

    def files(self) -> set[str]:
        assets = (asset for item in self._all for asset in item.assets.values())
        return self._read_from | set(map(asset_path, assets))

    @cached_property
    def _all(self) -> list[Item]:
        """All items, level by level."""
        items: list[Item] = []
        level: list[tuple[str, Any]] = [(self._url, self._page)]
        self._read_from = {self._url}  # from the start after a transient error
        while level:
            further: list[str] = []
            for href, page in level:
                items += self._items_on(page, href)
                catalogue = _type_of(page) in ("Catalog", "Collection")
                linked = _links(page, href, self._left_out) if catalogue else ()
                for rel, target, _ in linked:
                    if rel in ("item", "child") and target not in self._read_from:
                        self._read_from.add(target)
                        further.append(target)
            pages = ordered(further, self._read, workers=_WALKERS, ahead=4 * _WALKERS)
            level = [(href, page) for href, page in zip(further, pages, strict=True) if page]
        if not items:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self._left_out.items())[:3])
            raise ProviderError(
                f"no imagery in {shown_path(self._url)!r}: it has no items and no search"
                f"{'; left out: ' + reasons if reasons else ''}; use the address of an API's "
                "landing page or of a static catalogue"
            )
        return items

    def _read(self, href: str) -> Any:
        """Return a page, None if it is missing or damaged; transient errors are raised.

        Some servers show a page of theirs for whatever is missing.
        """
        try:
            return read_json(self._io, href)
        except ProviderError as exc:
            if exc.transient and not isinstance(exc, PageInsteadError):
                raise
            self._left_out[shown_path(href)] = str(exc)
            return None

    def _items_on(self, page: Any, href: str) -> Iterator[Item]:
        kind = _type_of(page)
        contents = [page] if kind == "Feature" else []
        if kind == "FeatureCollection":
            contents = page.get("features") or []
        elif kind not in ("Feature", "Catalog", "Collection"):
            self._left_out[shown_path(href)] = f"is not STAC (type {kind!r})"
        return parsed_items(contents, href, self._left_out)


Catalogue = _Api | _Static
_Link = tuple[str, str, str]
"""Relation, absolute href and method."""


def _type_of(page: Any) -> Any:
    return page.get("type") if isinstance(page, dict) else None


def _links(
    page: Mapping[str, Any], href: str, left_out: dict[str, str] | None = None
) -> list[_Link]:
    """Return the links of a page; ``left_out`` receives those that must not be followed."""
    with _stac(href):
        found = []
        for link in page.get("links") or ():
            try:
                target = linked_path(str(link["href"]), href)
            except ValueError as exc:
                if left_out is not None:
                    left_out[f"{shown_path(href)}, a link"] = str(exc)
                continue
            method = str(link.get("method") or "GET").upper()
            found.append((str(link.get("rel")), target, method))
        return found


@contextmanager
def _stac(href: str) -> Iterator[None]:
    """Turn what parsing raises for JSON that is not STAC into our error."""
    try:
        yield
    except json.JSONDecodeError:
        raise  # `asking` has a message for it
    except malformed() as exc:
        raise _not_stac(href, f"{type(exc).__name__}: {exc}") from exc


def _not_stac(href: str, reason: str) -> ProviderError:
    return ProviderError(
        f"{shown_path(href)!r} answered JSON that is not STAC ({reason}), expected an API's "
        "landing page, a Catalog, a Collection or items; correct the address of the catalogue"
    )
