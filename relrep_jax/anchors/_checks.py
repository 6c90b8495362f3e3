"""Checks at the doors of this package."""


def check_num_anchors(num_samples: int, num_anchors: int) -> None:
    """Raise `ValueError` unless `1 <= num_anchors <= num_samples`."""
    if num_anchors < 1:
        raise ValueError(f"num_anchors must be at least 1, got {num_anchors}.")
    if num_anchors > num_samples:
        raise ValueError(
            f"num_anchors is {num_anchors}, but there are only {num_samples} samples to choose "
            "from, and anchors are distinct. Ask for fewer anchors or give more samples."
        )
