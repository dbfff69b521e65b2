"""What a user may choose about all few-shot methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from common.errors import UserError

Search = Literal["exact", "grid", "fixed"]
GridName = Literal["overlap", "own"]


@dataclass(frozen=True)
class FewShotOptions:
    """How hyper-parameters are found, and what is drawn. Raises UserError for a value that there is not.

    ``search``
        ``exact`` finds the best alpha among all real numbers for each beta (and gamma) of the grid and refines all of them;
        ``grid`` takes the first best point of a released grid; ``fixed`` the published values, with which those grids were entered.
        Without validation images, values are always fixed.
    ``grid``
        ``overlap`` is that of the overlap correction's code, the same for all data sets; ``own`` that of each method's own code,
        for Tip-Adapter and APE one for each data set. APE and APE-T have only their own.
    ``as_released``
        what the released code does where that differs: Tip-X rescales by statistics of the images it is tested on, APE smooths.
    """

    search: Search = "exact"
    grid: GridName = "overlap"
    as_released: bool = False
    seed: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, known in (("search", get_args(Search)), ("grid", get_args(GridName))):
            if getattr(self, name) not in known:
                raise UserError(f"--{name} is '{getattr(self, name)}'; it must be one of {', '.join(known)}.")
