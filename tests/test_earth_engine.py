"""Earth Engine, by its real client: the contract, the requests, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import ee
import ee.deprecation
import pytest
from google.oauth2.credentials import Credentials

from rs_embed.providers.base import Provider
from rs_embed.providers.earth_engine import EarthEngineProvider
from rs_embed.providers.retrying import Patience
from rs_embed.testing import ProviderContract
from tests.earth_engine_server import Service, contract_service, serve

QUICK = Patience(attempts=5, wait_initial_s=0.001, wait_max_s=0.01)


@pytest.fixture(scope="module")
def shared_service() -> Iterator[Service]:
    with serve(contract_service()) as service:
        yield service


@pytest.fixture(scope="module")
def client() -> Iterator[None]:
    """The client for the module, without the catalogue that it would fetch from elsewhere."""
    patch = pytest.MonkeyPatch()
    patch.setattr(ee.deprecation, "_FetchDataCatalogStac", dict)
    yield
    ee.Reset()
    patch.undo()


CREDENTIALS = Credentials("x")  # type: ignore[no-untyped-call]


class TestEarthEngineProvider(ProviderContract):
    @pytest.fixture
    def provider(self, shared_service: Service, client: None) -> Provider:
        return EarthEngineProvider(
            "p", credentials=CREDENTIALS, endpoint=shared_service.url, patience=QUICK
        )
