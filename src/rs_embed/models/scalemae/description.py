"""Description of ``scalemae``: input contract, options, environment variables, weights."""

from __future__ import annotations

from rs_embed.models.base import DEVICES, InputContract, ModelDescription, Option, Weights
from rs_embed.models.scalemae.config import DISPLAYS, GSD_POLICIES, MEAN, STD, VARIANTS
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
            "Hugging Face id (optionally with @revision), folder, file or URL of the weights. "
            "scalemae-tiny is part of the package; random-init is meaningless, for dry runs only.",
            f"{SCALEMAE_ID.name}; scalemae-tiny with variant='tiny' alone",
            (TINY, RANDOM_INIT),
            type="string",
            recorded_as=("weights_sha256", "weights_seed"),
        ),
        Option(
            "variant",
            "Size of the network, if no config.json states it.",
            "from the weights",
            tuple(VARIANTS),
            recorded_as=("network",),
        ),
        Option(
            "loader",
            "Implementation of the network: this package's, or the wrapper of the package rshf.",
            "native",
            ("native", "rshf"),
        ),
        Option(
            "tokens",
            "Tokens after the final norm, as in the authors' encoder, or before it, as in rshf.",
            "normed; pre_norm with loader='rshf'",
            ("normed", "pre_norm"),
            recorded_as=("tokens_kind",),
        ),
        Option(
            "gsd",
            "GSD of the positional encoding: metres per pixel of the input, 224 / image_size as "
            "in the authors' k-NN evaluation (relative), or a number.",
            "that of the weights (gsd of config.json), then metres",
            GSD_POLICIES,
            type="number",
            minimum=0,
            recorded_as=("input_res",),
        ),
        Option(
            "display",
            "Reflectance that becomes 0 to 255: 0 to 1, or 0 to 0.3 as in true-colour images "
            "(visual).",
            "that of the weights (display of config.json; scalemae-tiny: visual), then reflectance",
            DISPLAYS,
            recorded_as=(),
        ),
        Option(
            "image_size",
            "Side of the square input, in pixels. Up to 224, the image is resized to 8/7 of it "
            "and cropped; above, it is only made square.",
            f"{SCALEMAE_IMG.name}, then that of the weights (image_size of config.json; "
            "scalemae-tiny: 256), then 224",
            type="integer",
            minimum=16,
            multiple_of="patch_size",
            recorded_as=(),
        ),
        Option(
            "precision",
            "Precision of matrix products; bfloat16 needs CUDA or a CPU with units for it, norms "
            "and positions stay float32. auto is bfloat16 on a CPU where it is measured to be "
            "faster.",
            "float32",
            ("float32", "bfloat16", "auto"),
        ),
        Option(
            "runtime",
            "What computes the blocks of the native network: PyTorch, or ONNX Runtime (extra onnx; "
            "CPU and float32 only).",
            "torch",
            ("torch", "onnx"),
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
