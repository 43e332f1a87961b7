"""Seeds depend on every part and nothing else."""

from orchestrator.maths.seeding import derive_seed


def test_seeds_are_the_same_everywhere_and_differ_by_part():
    assert derive_seed(0, "train", 1, "t", 2) == derive_seed(0, "train", 1, "t", 2)
    assert len({derive_seed(0, "a", i) for i in range(1000)}) == 1000
    assert derive_seed("ab", "c") != derive_seed("a", "bc")
    assert derive_seed(7) == 4703935488074688627  # also after the next Python release


def test_seeds_fit_a_signed_64_bit_integer():
    assert all(0 <= derive_seed(i) < 2**63 for i in range(1000))
