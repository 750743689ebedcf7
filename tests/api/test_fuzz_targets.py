"""The targets of the fuzzer hold on what it begins with, so that what it finds is news."""

import runpy
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("parser")

FUZZED = runpy.run_path(str(Path(__file__).parents[1] / "fuzz" / "targets.py"))
TARGETS, SEEDS = FUZZED["TARGETS"], FUZZED["SEEDS"]


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target(name):
    """Every seed passes, whole or cut off anywhere."""
    for seed in SEEDS[name]:
        for end in range(0, len(seed) + 1, 7):
            TARGETS[name](seed[:end])
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=100))
@example(data=b"[" * 100_000)
def test_any_bytes(name, data):
    """So do bytes of no form at all."""
    TARGETS[name](data)
