"""Plain federated averaging over the same hospitals, and how far the secure model may be from it."""

import numpy as np

from hospitals.task import LOCAL, TERMS, federation
from secagg.encoding.fixed_point import FixedPoint
from secagg.training import linear
from secagg.training.bound import Extent, distance_bound


def plain_model(survivors: list[list[int]], *, hospitals: int, seed: int) -> np.ndarray:
    """Return the model of plain federated averaging, a round for each list of the hospitals that were in its sum."""
    parties = federation(hospitals, seed).parties
    model = linear.initial_model(parties[0].x.shape[1])
    for present in survivors:
        if present:
            trained = [linear.train_locally(model, parties[one], LOCAL) for one in present]
            model = np.average(trained, axis=0, weights=[len(parties[one]) for one in present])
    return model


def bound(rounds: int, models: list[np.ndarray], *, hospitals: int, seed: int) -> float:
    """Return how far apart, at most, the two models are after so many rounds without clipping."""
    parties = federation(hospitals, seed).parties
    extent = Extent(
        coefficients=len(models[0]),
        parties=hospitals,
        records=max(map(len, parties)),
        record_norm=max(float(np.linalg.norm(linear.with_intercept(one.x), axis=1).max()) for one in parties),
        model_norm=max(float(np.linalg.norm(model)) for model in models),
        step_size=max(linear.step_size(one, LOCAL) for one in parties),
        local_steps=LOCAL.steps,
    )
    return distance_bound(rounds, encoding=FixedPoint(clip=TERMS["clip"], bits=TERMS["bits"]), extent=extent)


def missing(outcome: dict, *, hospitals: int, may_miss: set[int]) -> list[str]:
    """Return what went wrong besides: rounds without a sum, and hospitals out of one that were not to miss it."""
    found = []
    for number, one in enumerate(outcome["rounds"], start=1):
        if one["failure"] is not None:
            found.append(f"round {number} gave no sum: {one['failure']}")
        elif lost := set(range(hospitals)) - set(one["survivors"]) - may_miss:
            found.append(f"round {number} lost hospitals {sorted(lost)}")
    return found


def show(title: str, outcome: dict, *, hospitals: int, seed: int, plain: np.ndarray | None = None) -> bool:
    """Print what a training took, and whether it ended where plain averaging does; return whether it did."""
    model, rounds = np.array(outcome["model"]), outcome["rounds"]
    if plain is None:
        plain = plain_model([one["survivors"] for one in rounds], hospitals=hospitals, seed=seed)
    print(f"\n{title}: {outcome['seconds']:.1f} s")
    for number, one in enumerate(rounds, start=1):
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in one["seconds"].items())
        up, down = sum(one["bytes_up"].values()), sum(one["bytes_down"].values())
        print(f"  round {number}: hospitals {one['survivors']}, {len(one['seconds'])} exchanges, s: {stages}")
        print(f"           bytes up {up}, down {down}, all hospitals together")
        for hospital, fault in one["faults"].items():
            print(f"           hospital {hospital}: {fault}")
    distance = float(np.linalg.norm(model - plain))
    most = bound(sum(bool(one["survivors"]) for one in rounds), [model, plain], hospitals=hospitals, seed=seed)
    print(f"  accuracy on held-out records: {', '.join(f'{one:.3f}' for one in outcome['accuracy'])}")
    verdict = "equal" if distance <= most else "NOT equal"
    print(f"  distance to plain averaging {distance:.2e}, at most {most:.2e}: {verdict}")
    return distance <= most
