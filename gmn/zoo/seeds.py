"""Seeds and splits that follow from one seed, on every machine alike."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: object) -> int:
    """A seed for one purpose, independent of those for every other purpose.

    Args:
        seed: The seed of the whole zoo.
        *purpose: What the seed is for, such as the number of a network.

    Returns:
        A number below 2**63, the same on every machine.
    """
    text = ":".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def split_of(seed: int, number: int | str) -> str:
    """The split of a network, whatever the size of the zoo: 70 % train, 15 % val, 15 % test.

    Args:
        seed: Seed of the population.
        number: Number or name of the network, or of the run that it belongs to.

    Returns:
        ``"train"``, ``"val"`` or ``"test"``.
    """
    percent = derive_seed(seed, "split", number) % 100
    return "train" if percent < 70 else "val" if percent < 85 else "test"
