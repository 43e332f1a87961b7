"""Streams of random words: the published generator, each row from its own seed."""

import numpy as np
import pytest

from orchestrator.maths.streams import splitmix64, unit_interval


def test_the_words_are_those_of_the_published_generator():
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]

    assert splitmix64([1234567], 5).tolist() == [words]  # the generator's usual test vector


@pytest.mark.parametrize("seeds", [[3, -1, 2**64 + 3], np.array([3, 2**64 - 1, 3], dtype=np.uint64)])
def test_a_row_depends_on_the_low_64_bits_of_its_seed_alone(seeds):
    found = splitmix64(seeds, 4)

    assert found.dtype == np.uint64
    assert found[0].tolist() == splitmix64([3], 4)[0].tolist() == found[2].tolist()
    assert found[1].tolist() == splitmix64([2**64 - 1], 4)[0].tolist()


def test_the_unit_interval_ends_below_one():
    ends = unit_interval(np.array([0, 2**64 - 1, 2**63], dtype=np.uint64))

    assert ends.tolist() == [0.0, 1 - 2.0**-53, 0.5]
