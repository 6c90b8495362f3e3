"""Relative representations and products of invariances in JAX."""
