"""Example federations by name: bundled records, some held out, the rest split unevenly and by label skew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.errors import InputError
from secagg.training.linear import Floats, Records

HELD_OUT_SHARE = 0.3
FEWEST_RECORDS = 4  # of one party, where there are enough
SIZE_SPREAD = 0.8  # standard deviation of the logarithm of a party's size
LABEL_CONCENTRATION = 3.0  # of the Dirichlet distribution of a party's labels: smaller is more skewed

_PARTITION_STREAM = 1  # of the seed; the fault schedule uses another

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Schema:
    """What is public about a federation before anybody trains.

    Attributes:
        name: as given to ``load``.
        task: what label 1 means, in a sentence.
        features: names of the d features.
        units: d positive constants; a feature divided by its constant lies within -1 and 1. They come from the
            description of the measurement (its unit and order of magnitude), never from anybody's records.
    """

    name: str
    task: str
    features: tuple[str, ...]
    units: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Federation:
    """Records of several parties, and held-out records that none of them has.

    Attributes:
        schema: what is public.
        parties: each party's own records, at least one each.
        held_out: records for the evaluation alone.
    """

    schema: Schema
    parties: tuple[Records, ...]
    held_out: Records

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of records of each party."""
        return tuple(len(records) for records in self.parties)

    @property
    def weight_cap(self) -> int:
        """The cap that all agree on for one party's number of records: the next power of two."""
        return 1 << (max(self.sizes) - 1).bit_length()


def names() -> tuple[str, ...]:
    """Return the names that ``load`` knows, the default first."""
    return tuple(_SOURCES)


def most_clients(name: str) -> int:
    """Return how many clients the federation ``name`` can be split among: one record each.

    Raises:
        InputError: unknown name.
    """
    return len(_split_held_out(_records_of(name)[1], np.random.default_rng(0))[1])


def load(name: str, *, clients: int, seed: int) -> Federation:
    """Build the federation ``name`` of ``clients`` parties; the same name, clients and seed give the same split.

    Held-out records (30%) are split off first and keep the share of labels. The rest is dealt out with sizes
    drawn from a lognormal and labels from a Dirichlet distribution; every party has at least one record.

    Raises:
        InputError: unknown name, negative seed, fewer than one client, or more clients than records.
        ModuleNotFoundError: scikit-learn, which bundles the records, is not installed.
    """
    schema, records = _records_of(name)
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    rng = np.random.default_rng([seed, _PARTITION_STREAM])
    held_out, rest = _split_held_out(records, rng)
    if not 1 <= clients <= len(rest):
        raise InputError(f"{name} has records for 1 to {len(rest)} clients, got {clients}")
    parts = _deal(records.y[rest], _sizes(len(rest), clients, rng), rng)
    parties = tuple(_take(records, rest[part]) for part in parts)
    return Federation(schema, parties, _take(records, held_out))


def _records_of(name: str) -> tuple[Schema, Records]:
    if name not in _SOURCES:
        raise InputError(f"unknown federation {name!r}; known: {', '.join(_SOURCES)}")
    return _SOURCES[name]()


def _take(records: Records, indices: Indices) -> Records:
    return Records(records.x[indices], records.y[indices])


def _split_held_out(records: Records, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Return shuffled indices of the held-out records, stratified by label, and of all others."""
    held_out, rest = [], []
    for label in (0.0, 1.0):
        indices = rng.permutation(np.flatnonzero(records.y == label))
        cut = round(HELD_OUT_SHARE * len(indices))
        held_out.append(indices[:cut])
        rest.append(indices[cut:])
    return np.concatenate(held_out), np.concatenate(rest)


def _sizes(records: int, clients: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw uneven sizes that sum to ``records``, each at least 1.

    Where there are enough, each is at least ``FEWEST_RECORDS``; else at least half of what an even split would give.
    """
    fewest = min(FEWEST_RECORDS, (records // clients + 1) // 2)
    share = rng.lognormal(sigma=SIZE_SPREAD, size=clients)
    exact = share / share.sum() * (records - fewest * clients)
    sizes: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    missing = records - fewest * clients - int(sizes.sum())
    sizes[np.argsort(sizes - exact)[:missing]] += 1
    sizes += fewest
    return sizes


def _deal(labels: Floats, sizes: npt.NDArray[np.int64], rng: np.random.Generator) -> list[Indices]:
    """Deal every index out once; each party's share of label 1 is drawn from a Dirichlet about the common share.

    The largest parties choose first, so that a draw is cut short by what is left for as few records as possible.
    """
    piles = [rng.permutation(np.flatnonzero(labels == label)) for label in (0.0, 1.0)]
    common = np.array([len(pile) / len(labels) for pile in piles])
    dealt: list[Indices] = [np.empty(0, dtype=np.intp)] * len(sizes)
    for party in np.argsort(-sizes, kind="stable"):
        size = int(sizes[party])
        share = rng.dirichlet(LABEL_CONCENTRATION * common)[1]
        ones = int(np.clip(rng.binomial(size, share), max(0, size - len(piles[0])), min(size, len(piles[1]))))
        counts = (size - ones, ones)
        dealt[party] = np.concatenate([pile[:count] for pile, count in zip(piles, counts, strict=True)])
        piles = [pile[count:] for pile, count in zip(piles, counts, strict=True)]
    return dealt


def _breast_cancer() -> tuple[Schema, Records]:
    """569 fine-needle aspirates, 30 measurements of cell nuclei (Street, Wolberg, Mangasarian 1993)."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    # fmt: off
    units = (
        100, 100, 1_000, 10_000, 1, 1, 1, 1, 1, 0.1,     # mean radius, texture, perimeter, area, ...
        10, 10, 100, 1_000, 0.1, 1, 1, 0.1, 0.1, 0.1,    # their standard errors
        100, 100, 1_000, 10_000, 1, 10, 10, 1, 1, 1,     # their worst values
    )
    # fmt: on
    schema = Schema("breast-cancer", "label 1: the tumour is benign", tuple(map(str, bunch.feature_names)), units)
    return schema, Records(bunch.data.astype(np.float64), bunch.target.astype(np.float64))


def _wine() -> tuple[Schema, Records]:
    """178 wines, 13 chemical measurements (Forina et al. 1991); the first grower against the other two."""
    from sklearn.datasets import load_wine

    bunch = load_wine()
    units = (20, 10, 10, 100, 1_000, 10, 10, 1, 10, 20, 10, 10, 10_000)
    schema = Schema("wine", "label 1: the wine is the first grower's", tuple(map(str, bunch.feature_names)), units)
    return schema, Records(bunch.data.astype(np.float64), (bunch.target == 0).astype(np.float64))


def _digits_even() -> tuple[Schema, Records]:
    """1,797 handwritten digits, 64 pixels of 0 to 16 (Alpaydin, Kaynak 1998); even against odd."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    schema = Schema("digits-even", "label 1: the digit is even", tuple(map(str, bunch.feature_names)), (16.0,) * 64)
    return schema, Records(bunch.data.astype(np.float64), (bunch.target % 2 == 0).astype(np.float64))


_SOURCES: dict[str, Callable[[], tuple[Schema, Records]]] = {
    "breast-cancer": _breast_cancer,
    "wine": _wine,
    "digits-even": _digits_even,
}
