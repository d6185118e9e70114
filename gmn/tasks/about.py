"""What a question about networks is about: what they compute, or how they were trained."""

from __future__ import annotations

from gmn.foundation.arguments import require_one_of

ABOUT = ("function", "training")

# Columns that builders and importers of populations write, which networks of one function may
# differ in.
OF_TRAINING = {
    "augmentation",
    "backdoor",
    "backdoor_age",
    "batch_size",
    "data_fraction",
    "dropout",
    "epochs",
    "half",
    "init_scale",
    "init_std",
    "l2",
    "label_noise",
    "learning_rate",
    "optimiser",
    "optimizer",
    "seed",
    "step",
    "steps",
    "weight_decay",
}


def about_of(label: str, chosen: str | None) -> str:
    """``function`` or ``training``: as chosen, or, if it is None, by the name of the column.

    Raises:
        ArgumentError: if it is neither.

    >>> about_of("test_accuracy", None), about_of("learning_rate", None)
    ('function', 'training')
    """
    if chosen is None:
        return "training" if label in OF_TRAINING else "function"
    require_one_of("about", chosen, ABOUT)
    return chosen
