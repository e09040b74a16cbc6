"""Embedded worlds: complete miniatures of the field that ship with the package."""
