"""The pipelines of diffusers, imported without the advice on optional packages that comes with them."""

import logging

from transformers.utils.logging import get_verbosity, set_verbosity

_before = get_verbosity()
set_verbosity(logging.ERROR)
from diffusers import DiffusionPipeline as DiffusionPipeline  # noqa: E402
from diffusers import FluxPipeline as FluxPipeline  # noqa: E402
from diffusers import StableDiffusion3Pipeline as StableDiffusion3Pipeline  # noqa: E402
from diffusers import StableDiffusionPipeline as StableDiffusionPipeline  # noqa: E402
from diffusers import StableDiffusionXLPipeline as StableDiffusionXLPipeline  # noqa: E402

set_verbosity(_before)
