"""STAC over a loopback server: the contract, signing, faults, and what real items look like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rs_embed.providers.base import Provider
from rs_embed.providers.retrying import Patience
from rs_embed.providers.stac import StacProvider
from rs_embed.testing import (
    NORTH,
    ProviderContract,
)
from tests.stac_server import StacServer

QUICK = Patience(attempts=3, wait_initial_s=0.01, wait_max_s=0.02, timeout_s=5)
GRID = NORTH[0].grid.window(20, 70, 20, 20)


class TestStacProvider(ProviderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, contract_scenes: Path) -> Iterator[StacServer]:
        with StacServer().running() as server:
            server.add(contract_scenes)
            yield server

    @pytest.fixture
    def provider(self, server: StacServer) -> Provider:
        return StacProvider(server.url, patience=QUICK)


class TestStaticCatalogue(ProviderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, contract_scenes: Path) -> Iterator[StacServer]:
        with StacServer(folders={"files": contract_scenes}).running() as server:
            yield server

    @pytest.fixture
    def provider(self, server: StacServer, contract_scenes: Path) -> Provider:
        link_catalogue(contract_scenes)
        return StacProvider(f"{server.url}/files/catalog.json", patience=QUICK)


def link_catalogue(folder: Path) -> Path:
    """Write a catalogue of a collection that links to the items below ``folder``."""
    items = sorted(path.relative_to(folder) for path in folder.glob("*/*.json"))
    links = [{"rel": "item", "href": f"./{path.as_posix()}"} for path in items]
    collection = {
        "type": "Collection", "id": "sentinel-2-l2a", "stac_version": "1.0.0", "links": links,
        "description": "", "license": "proprietary", "extent": {},
    }  # fmt: skip
    (folder / "collection.json").write_text(json.dumps(collection))
    top = {
        "type": "Catalog", "id": "top", "stac_version": "1.0.0", "description": "",
        "links": [{"rel": "child", "href": "./collection.json"},
                  {"rel": "root", "href": "./catalog.json"}],
    }  # fmt: skip
    path = folder / "catalog.json"
    path.write_text(json.dumps(top))
    return path
