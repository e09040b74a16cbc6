"""Text-to-image models behind one contract; the only importer of diffusers and peft."""
