"""Says in the ordinary run that the tests beside this one need Flower, which the ordinary environment lacks."""

import pytest


def test_flower_is_installed():
    pytest.importorskip("flwr", reason="flwr is not installed: `make test-flower` runs these tests where it is")
