"""Diffusion mathematics only: schedules, reverse steps and the one denoising loop."""
