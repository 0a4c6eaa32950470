"""What ``scalemae`` says of itself: input contract, options, environment variables, weights."""

from __future__ import annotations

from rs_embed.models.base import DEVICES, InputContract, ModelDescription, Option, Weights
from rs_embed.models.scalemae.config import MEAN, STD, VARIANTS
from rs_embed.settings import SCALEMAE_ID, SCALEMAE_IMG, SCALEMAE_VARIABLES
from rs_embed.specs import INPUT_PREPS, POOLINGS

RANDOM_INIT = "random-init"
PUBLISHED = "MVRL/scalemae-vitlarge-800"
TINY = "scalemae-tiny"
# Implied by the defaults of the released training code.
TRAINED_INPUT_RES = (2.2, 5.0)

DESCRIPTION = ModelDescription(
    id="scalemae",
    aliases=("scalemae_rgb",),
    summary="RGB masked autoencoder (ViT-L/16) whose positional encoding is scaled by the GSD",
    family="ScaleMAE",
    publication="Reed et al., Scale-MAE, ICCV 2023, arXiv:2212.14532",
    patch_size=16,
    inputs=InputContract(
        collection="COPERNICUS/S2_SR_HARMONIZED",
        bands=("B4", "B3", "B2"),
        scale_m=10,
        cloudy_pct=30,
        composite="median",
        fill_value=0,
        temporal=("2022-06-01", "2022-09-01"),
        values="surface reflectance as digital numbers 0..10000 (reflectance * 10000)",
        mean=MEAN,
        std=STD,
    ),
    outputs={"pooled": POOLINGS, "grid": ()},
    input_preps=INPUT_PREPS,
    devices=DEVICES,
    options=(
        Option(
            "weights",
            "hub id (with @revision if wanted), folder or file; 'scalemae-tiny' ships with the "
            "package; 'random-init' has no meaning and serves to try the pipeline",
            f"{SCALEMAE_ID.name}; scalemae-tiny with variant='tiny' alone",
            (TINY, RANDOM_INIT),
            type="string",
            recorded_as=("weights_sha256", "weights_seed"),
        ),
        Option(
            "variant",
            "sizes of the network where no config.json states them",
            "from the weights",
            tuple(VARIANTS),
            recorded_as=("network",),
        ),
        Option(
            "loader",
            "our own network, or the wrapper of the package rshf",
            "native",
            ("native", "rshf"),
        ),
        Option(
            "tokens",
            "after the final norm, as the authors' encoder, or before it, as the rshf wrapper",
            "normed; pre_norm with loader='rshf'",
            ("normed", "pre_norm"),
            recorded_as=("tokens_kind",),
        ),
        Option(
            "gsd",
            "what the model is told: ground metres per pixel of its input, 224 / image_size as in "
            "the authors' k-NN evaluation, or a number",
            "metres",
            ("metres", "relative"),
            type="number",
            minimum=0,
            recorded_as=("input_res",),
        ),
        Option(
            "display",
            "reflectance 0..1 to 0..255 as the model's contract, or 0..0.3 as true-colour images",
            "reflectance",
            ("reflectance", "visual"),
            recorded_as=(),
        ),
        Option(
            "image_size",
            "side of the square input, pixels; up to 224 the image is resized to 8/7 of it and "
            "cropped, beyond that only made square",
            f"{SCALEMAE_IMG.name}, then img_size of config.json, then 224",
            type="integer",
            minimum=16,
            multiple_of="patch_size",
            recorded_as=(),
        ),
        Option(
            "precision",
            "bfloat16 runs matrix products in bfloat16 on CUDA; norms and positions stay float32",
            "float32",
            ("float32", "bfloat16"),
        ),
    ),
    environment=SCALEMAE_VARIABLES,
    weights=(
        Weights(
            PUBLISHED,
            "CC BY-NC 4.0 (the authors' release; the card of this repository says Apache-2.0)",
            "ViT-L/16, 303 M parameters, 1.21 GB",
            TRAINED_INPUT_RES,
        ),
        Weights(
            TINY,
            "Apache-2.0 (trained by this project; see MODEL_CARD.md beside the weights)",
            "ViT-Ti/8, 5.4 M parameters, 10.8 MB; part of this package",
            None,
        ),
        Weights(RANDOM_INIT, "none needed: drawn from a fixed seed", "any variant, no file", None),
    ),
)
