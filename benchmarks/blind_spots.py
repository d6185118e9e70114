"""What metanetworks see of a function beside its parameters.

Every pair of networks has equal parameters and computes different functions, because of operations
without parameters, constants beside the state dict, or buffers. Prints, for each pair, how far the
functions are apart, and by how much the answer of each metanetwork changes at initialisation
(float64, relative; 0 is blind). In the last rows, neurons that share an axis go with others: heads
of attention, queries of a group, factors of a bilinear layer.

Run: python -m benchmarks.blind_spots
"""

from __future__ import annotations

from tests.blind_spots import BUFFERS, COMPUTED, MODELS, SHARED, changes


def main() -> None:
    print(f"| pair | function | {' | '.join(MODELS)} |")
    print(f"|---|---|{'---|' * len(MODELS)}")
    for pair in [*COMPUTED, *BUFFERS, *SHARED]:
        seen = ["refused" if x is None else f"{x:.0e}" for x in changes(pair).values()]
        print(f"| {pair.name} | {pair.difference():.0e} | {' | '.join(seen)} |", flush=True)


if __name__ == "__main__":
    main()
