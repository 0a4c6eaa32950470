"""What tests of other packages inherit: the suites that every provider and model passes.

Needs pytest.
"""

from rs_embed.testing.models import ModelContract as ModelContract
from rs_embed.testing.providers import ProviderContract as ProviderContract
