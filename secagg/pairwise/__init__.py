"""SecAgg and SecAgg+: pairwise masks that cancel in the sum, with recovery from drop-outs.

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, figure 4;
Bell et al., CCS 2020, algorithm 2. ``client`` and ``server`` hold the steps, named as in the papers.
"""
