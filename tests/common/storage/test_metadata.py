import copy

import pytest

from BC_training.common.errors import UserError
from BC_training.common.storage.metadata import parse_array

V2 = {"shape": [2, 7], "chunks": [1, 7], "dtype": "|b1"}
V3 = {
    "node_type": "array",
    "shape": [2, 7],
    "data_type": "bool",
    "chunk_grid": {"configuration": {"chunk_shape": [1, 7]}},
    "codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 7]}}],
}

IMPOSSIBLE = {
    "negative rows": {"shape": [-4, 7]},
    "text": {"shape": ["2", "7"]},
    "floats": {"shape": [2.0, 7.0]},
    "true": {"shape": [True, 7]},
    "no list": {"shape": 4},
    "too many rows": {"shape": [10**15, 7]},
    "huge rows": {"shape": [2, 2**31]},
    "rows in many chunks": {"shape": [2, 10**6]},
    "huge chunks": {"chunks": [10**9, 10**9]},
    "chunks of nothing": {"chunks": [0, 0]},
    "other dimensions": {"chunks": [1]},
}


def parse(document: dict, changes: dict):
    changed = copy.deepcopy(document) | {k: v for k, v in changes.items() if k != "chunks"}
    if "chunks" not in changes:
        pass
    elif document is V2:
        changed["chunks"] = changes["chunks"]
    else:
        changed["chunk_grid"]["configuration"]["chunk_shape"] = changes["chunks"]
        changed["codecs"] = []
    return parse_array("actions", *((None, changed) if document is V2 else (changed, None)))


@pytest.mark.parametrize("document", [V2, V3], ids=["v2", "v3"])
@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_sizes_are_refused_before_anything_is_allocated(case, document):
    assert parse(document, {}).shape == (2, 7)
    with pytest.raises(UserError, match=r"the metadata of 'actions' (is damaged|makes no sense)"):
        parse(document, IMPOSSIBLE[case])


@pytest.mark.parametrize("dtype", [None, 3, "|O", "complex64", "nonsense"])
def test_a_dtype_that_is_not_read_is_kept_as_it_is_spelled(dtype):
    assert parse(V2, {"dtype": dtype}).dtype == str(dtype)
