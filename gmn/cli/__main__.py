"""``python -m gmn.cli``, which is what ``torchrun -m gmn.cli`` starts."""

from gmn.cli import main

main()
