import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secagg import InputError, Layout, flatten, unflatten

arrays = st.dictionaries(
    st.text(max_size=8),
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements=st.floats(-100, 100, width=16),
    ),
    max_size=5,
)


@given(arrays)
def test_unflatten_undoes_flatten(named):
    vector, layout = flatten(named)
    assert vector.shape == (layout.size,)
    assert vector.dtype == (np.float64 if any(a.dtype == np.float64 for a in named.values()) else np.float32)
    back = unflatten(vector, layout)
    assert list(back) == list(named)
    for name, array in named.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)


def test_views_in_any_memory_order_flatten_in_c_order():
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    vector, layout = flatten({"transposed": base.T, "strided": base[:, ::2]})
    np.testing.assert_array_equal(vector, [*base.T.ravel(), *base[:, ::2].ravel()])
    back = unflatten(vector.astype(np.float64), layout)
    np.testing.assert_array_equal(back["transposed"], base.T)


def test_unflattened_arrays_are_copies():
    vector, layout = flatten({"a": np.zeros(3)})
    unflatten(vector, layout)["a"][0] = 1
    assert vector[0] == 0


def test_layouts_that_differ_have_different_digests():
    layouts = [
        flatten(named)[1]
        for named in (
            {},
            {"a": np.zeros(2)},
            {"b": np.zeros(2)},
            {"a": np.zeros(2, np.float32)},
            {"a": np.zeros((2, 1))},
            {"a": np.zeros((1, 2))},
            {"a": np.zeros(1), "b": np.zeros(1)},
            {"b": np.zeros(1), "a": np.zeros(1)},
        )
    ]
    assert len({layout.digest() for layout in layouts}) == len(layouts)


@pytest.mark.parametrize("bad", [np.zeros(2, int), np.zeros(2, complex), np.array(["x"]), [1, 2], np.zeros(2, bool)])
def test_entries_that_are_no_floats_are_named(bad):
    with pytest.raises(InputError, match="array 'bad'"):
        flatten({"good": np.zeros(1), "bad": bad})


def test_names_must_be_text():
    with pytest.raises(InputError, match="names must be text"):
        flatten({1: np.zeros(1)})


@pytest.mark.parametrize("vector", [np.zeros(3), np.zeros(5), np.zeros((4, 1))])
def test_a_vector_of_another_shape_is_refused(vector):
    with pytest.raises(InputError, match=r"shape \(4,\)"):
        unflatten(vector, Layout(("a",), ((2, 2),), ("float64",)))
