"""The planner's picture: what it draws, that crossings are real, and that a phone can show it."""

from __future__ import annotations

import functools
import math

import pytest

import secagg
from legible import check, legends
from machines import machine
from secagg import picture, planning
from secagg.planning import plot
from secagg.planning.comparison import cohorts_around
from secagg.protocol import protocol_names

pytest.importorskip("matplotlib")

BOTH = ("semi-honest", "malicious-server")
UPLOAD = plot.Panel(title="", tick=picture.size, cost=lambda row: row.traffic.client_up)


@pytest.fixture(autouse=True)
def fewer_points(monkeypatch):
    monkeypatch.setattr(plot, "cohorts_around", functools.partial(cohorts_around, points=14))


def compared(*, timed: bool = True, threats=BOTH, **overrides) -> planning.Comparison:
    asked = {"clients": 100, "dimension": 1000, "encoding": secagg.FixedPoint(clip=1.0, bits=16)}
    asked |= {"dropout": 0.1, "corrupt": 0.05} | overrides
    return planning.compare(planning.Workload(**asked), threats=threats, machine=machine() if timed else None)


CASES = {
    "hundred": {},
    "no timing": {"timed": False},
    "three clients": {"clients": 3, "dropout": 0.0, "corrupt": 0.0, "dimension": 10},
    "thousand, large": {"clients": 1000, "dimension": 10**7, "dropout": 0.333333},
    "one model": {"threats": ("malicious-server",)},
    "homomorphic alone": {"clients": 5000, "dropout": 0.7, "threats": ("semi-honest",)},
    "nothing to add": {"dimension": 0},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_picture_has_one_legend_without_repeats_and_nothing_is_cut(case):
    comparison = compared(**case)
    figure = plot.draw(comparison)
    check(figure)
    [labels] = legends(figure)
    assert len(labels) == len(set(labels))
    drawn = plot.curves(comparison)
    assert set(labels) >= {curve.label for curve in drawn}
    assert f"{comparison.workload.clients:,} clients, as asked" in labels
    for axes in figure.axes:
        lines = [(line.get_label().split(",")[0], *map(tuple, line.get_xydata())) for line in axes.get_lines()]
        assert len(set(lines)) == len(lines)
        assert all(len(line) > 1 for line in lines)


def test_a_protocol_that_is_the_same_in_both_models_is_one_curve():
    drawn = plot.curves(compared())
    labels = [curve.label for curve in drawn]
    assert labels == [
        "secagg, semi-honest",
        "secagg, malicious",
        "secagg+, semi-honest",
        "secagg+, malicious",
        "bfv, both models",
        "ckks, both models",
    ]
    alone = plot.curves(compared(threats=("malicious-server",)))
    assert "bfv, malicious" in [curve.label for curve in alone]


def test_a_protocol_keeps_its_colour_and_marker():
    looks = {}
    for name in ("no timing", "one model", "homomorphic alone"):
        for axes in plot.draw(compared(**CASES[name] | {"timed": False})).axes:
            for line in axes.get_lines():
                protocol = line.get_label().split(",")[0]
                if protocol in protocol_names():
                    look = (line.get_color(), line.get_marker())
                    assert looks.setdefault(protocol, look) == look
    assert len({colour for colour, _ in looks.values()}) == len({mark for _, mark in looks.values()}) == len(looks) == 4


def test_curves_hold_only_cohorts_that_a_protocol_can_carry():
    ends = {curve.label: curve.clients for curve in plot.curves(compared(), (3, 100, 5000))}
    assert ends["secagg, semi-honest"] == (100,)
    assert ends["secagg+, malicious"] == (100, 5000)


@pytest.mark.parametrize("dimension", [10, 1000, 100_000])
def test_a_crossing_lies_where_two_curves_change_their_order(dimension):
    drawn = plot.curves(compared(dimension=dimension), cohorts_around(100))
    for panel in (UPLOAD, *plot._PANELS):
        for clients, cost in plot.crossings(panel, drawn):
            through = [c for c in drawn if (at := cost_at(panel, c, clients)) and math.isclose(at, cost, rel_tol=1e-9)]
            assert any(changes_order(panel, a, b, clients) for a in through for b in through if a is not b)


def cost_at(panel: plot.Panel, curve: plot.Curve, clients: float) -> float | None:
    """Read a curve as it is drawn: straight between its points on logarithmic axes."""
    for (left, before), (right, after) in zip(points(panel, curve), points(panel, curve)[1:], strict=False):
        if left <= clients <= right:
            part = math.log(clients / left) / math.log(right / left)
            return before * (after / before) ** part
    return None


def points(panel: plot.Panel, curve: plot.Curve) -> list[tuple[int, float]]:
    return [(n, panel.cost(row)) for n, row in zip(curve.clients, curve.rows, strict=True)]


def changes_order(panel: plot.Panel, one: plot.Curve, other: plot.Curve, clients: float) -> bool:
    costs = [(n, a, dict(points(panel, other)).get(n)) for n, a in points(panel, one)]
    before = [a - b for n, a, b in costs if b is not None and n < clients and a != b]
    after = [a - b for n, a, b in costs if b is not None and n > clients and a != b]
    return bool(before and after) and before[-1] * after[0] < 0


def test_a_curve_that_starts_ends_or_leaves_another_crosses_nothing():
    def curve(protocol: str, costs: dict[int, float]) -> plot.Curve:
        return plot.Curve(protocol=protocol, threats=("semi-honest",), clients=tuple(costs), rows=tuple(costs.values()))

    panel = plot.Panel(title="", tick=picture.size, cost=lambda cost: cost)
    flat = curve("bfv", {4: 10.0, 8: 10.0, 16: 10.0, 32: 10.0})
    assert plot.crossings(panel, [flat, curve("secagg", {8: 5.0, 16: 6.0})]) == []
    assert plot.crossings(panel, [flat, curve("secagg", {4: 10.0, 8: 10.0, 16: 9.0, 32: 8.0})]) == []
    assert plot.crossings(panel, [flat, curve("secagg", {4: 8.0, 8: 10.0, 16: 10.0, 32: 9.0})]) == []
    [(clients, cost)] = plot.crossings(panel, [flat, curve("secagg", {4: 8.0, 8: 10.0, 16: 10.0, 32: 12.0})])
    assert (clients, cost) == (16, 10)
    [(clients, cost)] = plot.crossings(panel, [flat, curve("secagg", {8: 5.0, 16: 20.0})])
    assert (clients, cost) == pytest.approx((math.sqrt(8 * 16), 10))


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_picture_is_written(tmp_path, ending):
    path = tmp_path / f"plan.{ending}"
    plot.save(compared(timed=False), path)
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert path.read_bytes().startswith(starts[ending])
    with pytest.raises(secagg.InputError, match="must end in one of"):
        plot.save(compared(timed=False), tmp_path / "plan.docx")
