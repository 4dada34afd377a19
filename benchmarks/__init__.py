"""Measurements of secagg, and of secagg beside others."""
