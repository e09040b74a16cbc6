"""Prompts: files, and endless mixtures of sources."""
