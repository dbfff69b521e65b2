"""What the methods that look at images have in common."""

from __future__ import annotations

from common.errors import UserError
from merging.method import MergeTensor, Start
from merging.options import MergeOptions
from merging.weights import Pool

TOWER = "visual."  # how the names of the image tower's tensors begin


def needs_images(method: str) -> Start:
    """The start of a method without images: a UserError that says so."""

    def start(pool: Pool, options: MergeOptions) -> MergeTensor:
        raise UserError(f"{method} looks at images of every model's task, and no tasks are given.")

    return start


def check_image_tower(pool: Pool, method: str) -> None:
    """UserError when something beyond the image tower is to be merged."""
    beyond = next((name for name in pool.merged if not name.startswith(TOWER)), None)
    if beyond is not None:
        raise UserError(f"{method} merges image towers by their images, and '{beyond}' is of another part; leave --towers both out.")
