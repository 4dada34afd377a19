"""What a round is planned to withstand where nobody says: one home for the library, the command line and Flower.

Both rates err towards safety: at lower ones a round is cheaper, and stands less. A module of its own, so that the
command line's help need not load what plans.
"""

from __future__ import annotations

PLANNED_DROPOUT = 0.2
"""The share of clients that may vanish; if more do, the round gives no sum and reveals nothing."""
PLANNED_CORRUPT = 0.1
"""The share of clients that may collude with the server; if more do, it may read others' vectors."""
