"""Compiled loops, the leaves of the library: arrays in, arrays out, nothing validated.

Typed wrappers elsewhere (``secagg.primitives``, ``secagg.encoding``) check shapes, dtypes and ranges before they call.
"""
