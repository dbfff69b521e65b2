"""The constants of the corruptions, by style and kind, for the severities 1 to 5.

``relative`` are those of ImageNet-C, ``cifar`` those of CIFAR-10-C (both Hendrycks and Dietterich, ICLR 2019).
"""

from __future__ import annotations

from typing import Any

CONSTANTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "relative": {
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor of the distance from the mean
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation; black is 0, white is 1
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # share of the values that become 0 or 1
        "jpeg_compression": (25, 18, 15, 10, 7),  # quality
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),  # radius and standard deviation in pixels
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # pixels that remain on a side, as a share
        "spatter": (  # mean, standard deviation, blur, threshold, strength (water) or blur (mud), whether it is mud
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
    },
    "cifar": {
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "jpeg_compression": (80, 65, 58, 50, 40),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
        "spatter": (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
    },
}
