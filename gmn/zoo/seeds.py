"""Seeds and splits that follow from one seed, the same on every machine."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: object) -> int:
    """A seed for one purpose, independent of those for every other purpose.

    Args:
        seed: the seed of the whole zoo.
        *purpose: what the seed is for, such as the index of a network.

    Returns:
        A number below 2**63, the same on every machine.
    """
    text = ":".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def split_of(seed: int, network: int | str) -> str:
    """The split of a network, which does not depend on the size of the zoo: 70/15/15 %.

    Args:
        seed: seed of the population.
        network: index or name of the network, or of the run that it belongs to.

    Returns:
        ``"train"``, ``"val"`` or ``"test"``.
    """
    percent = derive_seed(seed, "split", network) % 100
    return "train" if percent < 70 else "val" if percent < 85 else "test"
