"""The targets of the fuzzer pass on their seeds, so every failure that it finds is new."""

import runpy
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

FUZZED = runpy.run_path(str(Path(__file__).parents[1] / "fuzz" / "targets.py"))
TARGETS, SEEDS = FUZZED["TARGETS"], FUZZED["SEEDS"]
CUTS = 12


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("parser")
def test_every_seed_of_a_target_passes(name):
    """Either parser reads it."""
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_seed_that_is_cut_off_passes(name):
    """It may end anywhere; each seed is cut in a dozen places, others in each."""
    for number, seed in enumerate(SEEDS[name]):
        step = len(seed) // CUTS + 1
        for end in range(number % step, len(seed), step):
            TARGETS[name](seed[:end])


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=100))
@example(data=b"[" * 100_000)
def test_arbitrary_bytes_pass(name, data):
    """No form is required."""
    TARGETS[name](data)
