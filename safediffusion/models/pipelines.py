"""The pipelines of diffusers, imported without the advice on optional packages that comes with them."""

from transformers.utils import logging

_before = logging.get_verbosity()
logging.set_verbosity(logging.ERROR)
from diffusers import StableDiffusionPipeline as StableDiffusionPipeline  # noqa: E402

logging.set_verbosity(_before)
