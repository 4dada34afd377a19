"""Units and wrapped texts of the pictures."""

from __future__ import annotations

import pytest

from secagg import picture


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (2736, "2.74 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (6 * 10**7, "60 MB"),
        (7_708_363_200, "7.71 GB"),
        (10**13, "10,000 GB"),
    ],
)
def test_bytes_are_written_in_units(count, text):
    assert picture.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (2e-9, "2 ns"), (1.25e-6, "1.25 µs"), (0.0315, "31.5 ms"), (0.9999, "1 s"), (4321, "4,321 s")],
)
def test_seconds_are_written_in_units(seconds, text):
    assert picture.duration(seconds) == text


@pytest.mark.parametrize("text", ["short", "a few words " * 30, "W" * 200, "$x$ " * 50, ""])
def test_wrapped_texts_lose_nothing(text):
    pytest.importorskip("matplotlib")
    lines = picture.wrapped(text, 12, "bold")
    assert "".join(lines.split()) == "".join(text.split())
    assert (len(lines.splitlines()) > 1) == (len(text) > 60)
