"""Local imagery: the contract, and what folders, files and catalogues hold in practice."""

from __future__ import annotations

from pathlib import Path

import pytest

from rs_embed.providers.base import Provider
from rs_embed.providers.local import LocalProvider
from rs_embed.testing import ProviderContract


class TestLocalProvider(ProviderContract):
    @pytest.fixture
    def provider(self, contract_scenes: Path) -> Provider:
        return LocalProvider(contract_scenes)
