"""The training's picture: which panels it has, what they say, and that a phone can show it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from legible import check, legends
from secagg.training import driver, plot
from secagg.training.driver import PlainRecord, SecureRecord, Settings, SumTraffic
from secagg.training.federation import Federation, Schema
from secagg.training.linear import Records

pytest.importorskip("matplotlib")

ACCURACY, LOSS, TIME, BYTES = (
    "Accuracy on held-out records",
    "Loss on held-out records, in nats",
    "Time of all clients and the server in one process",
    "Bytes of one client, the most in any round",
)
LANES = "Drop-outs, by the first message that was not sent"
SHARES = "Share of the clients that dropped out, by message"


def outcome(clients: int = 10, rounds: int = 5, *, name: str = "clouds", failing=(), gone=None, **settings):
    """A training that never ran: its parameters are planned, its figures made up."""
    asked = Settings(rounds=rounds, **settings)
    some = Records(np.zeros((3, 4)), np.zeros(3))
    federation = Federation(
        Schema(name, "label 1: the right cloud", tuple("abcd"), (1.0,) * 4), (some,) * clients, some
    )
    plan = driver.plan(federation, asked)
    secure = [record(plan, asked, number, number in failing, gone) for number in range(1, rounds + 1)]
    plain = [PlainRecord(round=r.round, model=r.model, loss=r.loss, accuracy=r.accuracy) for r in secure]
    return SimpleNamespace(federation=federation, plan=plan, stages=plan.stages, secure=secure, plain=plain)


def record(plan, settings: Settings, number: int, fails: bool, gone) -> SecureRecord:
    dropped = driver.draw_faults(settings, plan.training, number) if gone is None else gone
    figures = {"model": np.zeros(5), "loss": 0.7 / number, "accuracy": min(1.0, 0.9 + 0.011 * number)}
    if fails:
        traffic = SumTraffic(survivors=(), dropped=dropped, failure="too few clients")
    else:
        count = {stage: 10 ** (2 + place) for place, stage in enumerate(plan.stages)}
        down = {stage: size // 3 for stage, size in count.items()}
        if "release" in count and plan.training.key_holder == "decryptor":
            count["release"] = down["release"] = 0
        seconds = dict.fromkeys(plan.stages, 0.003 * number)
        traffic = SumTraffic(survivors=(0,), dropped=dropped, bytes_up=count, bytes_down=down, seconds=seconds)
    return SecureRecord(round=number, traffic=traffic, **figures)


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


CASES = {
    "ten": {},
    "three clients": {"clients": 3, "dropout": 0.0, "corrupt": 0.0},
    "one round": {"rounds": 1},
    "hundred rounds": {"rounds": 100},
    "hundred clients": {"clients": 100, "rounds": 20},
    "thousand clients": {"clients": 1000, "rounds": 2, "threat": "malicious-server"},
    "complete": {"clients": 30, "protocol": "secagg", "threat": "malicious-server", "rounds": 31},
    "failed": {"rounds": 8, "failing": (2, 3, 8), "actual_dropout": 0.4},
    "all failed": {"rounds": 2, "failing": (1, 2), "actual_dropout": 0.9},
    "bfv": {"protocol": "bfv"},
    "ckks, clients": {"protocol": "ckks", "key_holder": "clients", "clients": 40},
    "long name": {"name": "hospitals of the northern and the southern provinces, $records$ of all years " * 3},
    "wide name": {"name": "W" * 70, "protocol": "bfv"},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nothing_is_cut_overlaps_or_is_too_small(case):
    figure = plot.draw(outcome(**case))
    texts = check(figure)
    for labels in legends(figure):
        assert labels
        assert len(labels) == len(set(labels))
    assert ACCURACY in texts
    assert all(axes.has_data() for axes in figure.axes)
    assert not any("10^" in text or "1e" in text for text in texts)


@pytest.mark.parametrize(
    ("case", "panels"),
    [
        ({"rounds": 30}, [ACCURACY, LOSS, LANES, TIME, BYTES]),
        ({"rounds": 31}, [ACCURACY, LOSS, SHARES, TIME, BYTES]),
        ({"clients": 20}, [ACCURACY, LOSS, LANES, TIME, BYTES]),
        ({"clients": 100}, [ACCURACY, LOSS, SHARES, TIME, BYTES]),
        ({"gone": {}}, [ACCURACY, LOSS, TIME, BYTES]),
        ({"rounds": 2, "failing": (1, 2)}, [ACCURACY, LOSS, LANES]),
    ],
)
def test_lanes_are_for_small_cohorts_and_nothing_is_drawn_empty(case, panels):
    figure = plot.draw(outcome(**case))
    assert titles(figure) == panels
    assert ("no drop-outs" in figure.get_suptitle()) == (case.get("gone") == {})
    assert ("2 without a sum" in figure.get_suptitle()) == ("failing" in case)


def test_the_shares_are_those_that_dropped_out_at_each_stage():
    gone = {party: "share_keys" if party < 12 else "unmask" for party in range(20)}
    figure = plot.draw(outcome(clients=100, rounds=3, gone=gone))
    axes = figure.axes[titles(figure).index(SHARES)]
    tops = [[patch.get_height() for patch in bars] for bars in axes.containers]
    assert np.allclose(tops, [[0.12] * 3, [0.08] * 3])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["share_keys", "unmask"]
    [planned] = axes.get_lines()
    assert list(planned.get_ydata()) == [0.2, 0.2]


def test_many_rounds_are_averaged_over_those_that_gave_a_sum():
    figure = plot.draw(outcome(rounds=80, failing=(1, 3, 4), gone={0: "unmask"}))
    axes = figure.axes[titles(figure).index(TIME)]
    assert axes.get_xlabel() == "round (a bar: mean of 2; grey: no sum)"
    heights = [bars[0].get_height() for bars in axes.containers]
    assert np.allclose(heights, 0.006)  # of round 2 alone
    assert all(bars[1].get_height() == 0 for bars in axes.containers)
    assert np.allclose([bars[2].get_height() for bars in axes.containers], 0.003 * 5.5)
    middles = [bar.get_x() + bar.get_width() / 2 for bar in axes.containers[0]]
    assert middles[0] == pytest.approx(1.5)
    assert len(middles) == 40


def test_a_lane_has_a_mark_for_each_drop_out_and_a_legend_for_the_stages_that_occur():
    gone = {2: "advertise_keys", 7: "unmask", 9: "unmask"}
    figure = plot.draw(outcome(rounds=2, gone=gone))
    axes = figure.axes[titles(figure).index(LANES)]
    marks = {line.get_label(): sorted(map(tuple, line.get_xydata())) for line in axes.get_lines()}
    assert marks == {"advertise_keys": [(1, 2), (2, 2)], "unmask": [(1, 7), (1, 9), (2, 7), (2, 9)]}
    assert len({line.get_marker() for line in axes.get_lines()}) == 2


def test_stages_that_send_nothing_have_no_row():
    for asked, rows in (({}, ["encrypted_input"]), ({"key_holder": "clients"}, ["encrypted_input", "release"])):
        figure = plot.draw(outcome(protocol="bfv", **asked))
        axes = figure.axes[titles(figure).index(BYTES)]
        assert [label.get_text() for label in axes.get_yticklabels()] == rows


def test_a_users_own_style_does_not_reach_the_picture(tmp_path):
    import matplotlib as mpl

    with mpl.rc_context({"figure.facecolor": "black", "font.size": 30, "savefig.facecolor": "black"}):
        before = dict(mpl.rcParams)
        check(plot.draw(outcome()))
        plot.save(outcome(), tmp_path / "training.png")
        assert dict(mpl.rcParams) == before
    assert (tmp_path / "training.png").stat().st_size > 20_000


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_picture_is_written(tmp_path, ending):
    path = tmp_path / f"training.{ending}"
    plot.save(outcome(), path)
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])
