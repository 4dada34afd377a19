"""The code of docs/homomorphic.md, run as it stands there."""

from __future__ import annotations

import doctest
import sys
import tempfile
from types import ModuleType

import numpy as np
import pytest

import guides
import secagg

PAGE = guides.DOCS / "homomorphic.md"


def test_the_pages_simulated_sum_is_as_shown():
    outcome = doctest.testfile(str(PAGE), module_relative=False)
    assert outcome.attempted >= 6
    assert outcome.failed == 0


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the page defines, after its sum."""
    loops = ModuleType("loops")
    vars(loops).update(vars(guides.loops()))
    monkeypatch.setitem(sys.modules, "loops", loops)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    namespace: dict[str, object] = {}
    exec("\n".join(guides.without_doctests(guides.blocks("homomorphic.md"))), namespace)  # noqa: S102 - our own page
    return namespace


def test_the_guides_sum_is_that_of_those_that_sent(names):
    result, vectors = names["server"].result, names["Inbox"].vectors
    assert result.survivors == (0, 1, 2, 4)
    assert np.abs(result.mean - vectors[[0, 1, 2, 4]].mean(axis=0)).max() < names["params"].encoding.step
    assert names["key"].released == 1
    assert names["decryptor"].stage is None


def test_a_decryptor_that_follows_the_guide_releases_one_sum_whenever_it_dies(names):
    """A second aggregator has all uploads but one added, and asks the decryptor, which has started again since."""
    again, params, directory = names["decryptor"], names["params"], names["directory"]
    second = secagg.ServerSession(
        params, directory, context=names["context"], keep=secagg.IN_MEMORY, credentials=names["credentials"]
    )
    uploads = {one: names["client"](one, names["opening"], np.zeros(4)) for one in (0, 1, 2, 4)}
    for one in (0, 1, 2):
        second.receive(one, uploads[one])
        assert names["serve"](again, names["sessions"], one, uploads[one]) == b"not counted"
    upload = names["client"](3, names["opening"], np.zeros(4))
    second.receive(3, upload)
    second.advance()
    with pytest.raises(secagg.ServerFault, match="second, different"):
        again.release(second.party_requests()["decryptor"])


def test_names_of_the_library_on_the_page_exist():
    guides.check_names("docs/homomorphic.md")
