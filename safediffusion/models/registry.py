"""The model families: a backbone by the class of its diffusers pipeline, which model_index.json names."""

from __future__ import annotations

from safediffusion.core.registry import Registry

MODELS = Registry(
    "pipeline class",
    {
        "StableDiffusionPipeline": "safediffusion.models.sd1:Sd1Backbone",
        "StableDiffusionXLPipeline": "safediffusion.models.sdxl:SdxlBackbone",
        "StableDiffusion3Pipeline": "safediffusion.models.sd3:Sd3Backbone",
        "FluxPipeline": "safediffusion.models.flux:FluxBackbone",
    },
    group="safediffusion.models",
)
