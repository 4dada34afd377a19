"""secagg under Flower beside Flower's own SecAgg+: the same app, the same nodes, the same faults."""
