"""The suite that every model passes."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rs_embed.embedding.encoding import GsdImage, ImageTokens, encode, network_input
from rs_embed.embedding.identity import determining_keys
from rs_embed.embedding.one_place import get_embedding
from rs_embed.registry import checked_plan, find_model
from rs_embed.settings import Settings
from rs_embed.specs import FetchSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.models.base import Encoder, Model, Plan, Preparation

REFLECTANCE = (1 / 10000, 0.0)
# Heights and widths of rasters, pixels.
SHAPES = ((64, 64), (61, 97), (130, 47))
SAME = 1e-4
"""Greatest difference between the tokens of an image alone and in a batch."""


class ModelContract:
    """What every model must do.

    A test class inherits it, and names the model and the options that it is tested with::

        class TestMine(ModelContract):
            name = "mine"
            options = {"weights": "random"}
    """

    name: str
    """Id under which the model is registered."""
    options: dict[str, Any] = {}  # noqa: RUF012  # replaced, not changed
    """Options that make it small and need no download."""

    @pytest.fixture
    def model(self) -> Model:
        """Return the model that is registered under the name."""
        return find_model(self.name)

    @pytest.fixture
    def plan(self, model: Model) -> Plan:
        """Return the plan for the options."""
        return checked_plan(model, self.options, device="cpu", settings=Settings.from_environ())

    @pytest.fixture
    def encoder(self, plan: Plan) -> Encoder:
        """Return the loaded model."""
        return plan.load()

    def values(self, model: Model, shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint16]:
        """Return digital numbers ``(bands, height, width)`` of the model's bands."""
        bands = len(model.description.inputs.bands)
        return np.random.default_rng(seed).integers(200, 6000, (bands, *shape)).astype(np.uint16)

    def image(self, model: Model, plan: Plan, seed: int, gsd: float) -> GsdImage:
        """Return the input of the network for a square image of noise."""
        side = (plan.image_size, plan.image_size)
        image = plan.preparation.image(self.values(model, side, seed), REFLECTANCE)
        return network_input(plan.preparation, image, gsd)

    def test_description_is_json_and_consistent(self, model: Model) -> None:
        """Everything it states can be shown, and no option hides an argument or another one."""
        stated = json.loads(json.dumps(model.description.to_json()))
        names = [option["name"] for option in stated["options"]]
        assert len(set(names)) == len(names)
        assert stated["inputs"]["bands"]
        assert stated["inputs"]["scale_m"] > 0
        bands = len(stated["inputs"]["bands"])
        assert len(stated["inputs"]["mean"]) in (0, bands)
        assert len(stated["inputs"]["std"]) == len(stated["inputs"]["mean"])
        for name in names:
            assert name.isidentifier()
            assert name not in get_embedding.__annotations__

    def test_plan_is_settled_and_pickles(self, model: Model, plan: Plan) -> None:
        """It identifies its options by JSON values, also in another process."""
        assert json.loads(json.dumps(dict(plan.settled))) == dict(plan.settled)
        assert json.loads(json.dumps(dict(plan.input_meta))) == dict(plan.input_meta)
        there = pickle.loads(pickle.dumps(plan))  # noqa: S301  # made here
        assert there.settled == plan.settled
        assert plan.image_size % plan.patch_size == 0
        again = model.plan(self.options, device="cpu", settings=Settings.from_environ())
        assert again.settled == plan.settled

    @pytest.mark.parametrize("shape", SHAPES)
    def test_frame_is_whole_patches_within_the_raster(
        self, plan: Plan, shape: tuple[int, int]
    ) -> None:
        """The resize keeps proportions, and the crop is within it."""
        frame = plan.preparation.frame(shape, plan.image_size)
        for side, resized in zip(shape, frame.resized, strict=True):
            factor = min(frame.resized) / min(shape)
            assert abs(resized - side * factor) <= 1
        assert frame.top >= 0
        assert frame.left >= 0
        assert frame.top + frame.shape[0] <= frame.resized[0]
        assert frame.left + frame.shape[1] <= frame.resized[1]
        assert not any(side % plan.patch_size for side in frame.shape)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_images_are_made_pixel_by_pixel(
        self, model: Model, plan: Plan, shape: tuple[int, int]
    ) -> None:
        """A window of an image is the image of the window; shapes and dtypes are as stated."""
        preparation: Preparation = plan.preparation
        values = self.values(model, shape)
        image = preparation.image(values, REFLECTANCE)
        assert image.shape[:2] == shape
        window = preparation.image(values[:, 5:40, 3:30], REFLECTANCE)
        assert np.array_equal(window, image[5:40, 3:30])
        preparation.check(image)
        frame = preparation.frame(shape, plan.image_size)
        fitted = preparation.fitted(image, frame)
        assert fitted.shape == (*frame.shape, *image.shape[2:])
        assert fitted.dtype == image.dtype
        tensor = preparation.tensor(fitted)
        assert tensor.dtype == np.float32
        assert tensor.ndim == 3
        assert tensor.shape[1:] == frame.shape
        assert np.isfinite(tensor).all()
        picture = preparation.picture(image)
        assert picture.shape == (*shape, 3)
        assert picture.dtype == np.uint8

    def test_units_are_honoured(self, model: Model, plan: Plan) -> None:
        """The same reflectance in other units gives the same image, up to rounding."""
        values = self.values(model, (40, 40))
        one = plan.preparation.tensor(plan.preparation.image(values, REFLECTANCE))
        other = plan.preparation.tensor(
            plan.preparation.image((values * np.float64(1e-4) - 0.1) / 2e-5, (2e-5, 0.1))
        )
        assert np.abs(one - other).max() < 0.05

    def test_tokens_are_of_their_own_image(
        self, model: Model, plan: Plan, encoder: Encoder
    ) -> None:
        """A batch gives what each image gives alone, at its own GSD and in its own place."""
        images = [self.image(model, plan, seed, gsd) for seed, gsd in ((1, 4.0), (2, 9.0))]
        together = list(encode(encoder, images, batch_size=2))
        for image, tokens in zip(images, together, strict=True):
            (alone,) = encode(encoder, [image], batch_size=1)
            assert isinstance(tokens, ImageTokens), tokens
            assert isinstance(alone, ImageTokens), alone
            for part in ("cls", "patches", "pooled"):
                one, other = getattr(tokens, part), getattr(alone, part)
                assert (one is None) == (other is None)
                assert one is None or np.abs(one - other).max() < SAME
        assert (encoder.image_size, encoder.patch_size) == (plan.image_size, plan.patch_size)
        assert plan.batch_size >= 1

    def test_patches_follow_the_shape_of_the_image(
        self, model: Model, plan: Plan, encoder: Encoder
    ) -> None:
        """Images need not be square, as long as their sides are whole patches."""
        height, width = 3 * plan.patch_size, 5 * plan.patch_size
        image = plan.preparation.image(self.values(model, (height, width)), REFLECTANCE)
        (tokens,) = encode(encoder, [network_input(plan.preparation, image, 10.0)], batch_size=1)
        assert isinstance(tokens, ImageTokens), tokens
        if "grid" in model.description.outputs:
            assert tokens.patch_tokens("a grid").shape[:2] == (3, 5)

    @pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning")
    def test_meta_records_what_determines_numbers(self, model: Model) -> None:
        """The fingerprint finds every option in the meta, and is the same for the same pixels."""
        pixels = self.values(model, (64, 64))
        first, again = (
            get_embedding(self.name, input_chw=pixels, fetch=FetchSpec(scale_m=10), **self.options)
            for _ in range(2)
        )
        assert json.loads(json.dumps(first.meta)) == first.meta
        own = determining_keys(model.description.options)
        unrecorded = {"network", "loader", "precision", "runtime", "weights_sha256", "weights_seed"}
        assert set(own) - unrecorded <= first.meta.keys()
        assert first.meta["fingerprint"] == again.meta["fingerprint"]
        assert np.array_equal(first.data, again.data)
