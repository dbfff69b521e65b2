"""Which benchmarks `make bench` runs, at three sizes, each as the command that runs it alone."""

from __future__ import annotations

from dataclasses import dataclass

LARGE_CACHE = "--methods tip_adapter --ours-only --images 50000 --classes 1000 --noise 0.14 --repeats 1"

DEFAULT: dict[str, tuple[str, ...]] = {
    "text": ("",),
    "inversion": ("",),
    "embed": ("",),
    "data": ("",),
    "retrieval": ("",),
    "few_shot": ("",),
    "metrics": ("--stream 1000000",),
    "merging": (
        "",
        "--layers 1 --methods tsv_m iso_c",
        "--layers 1 --models 4 --methods wudi",
        "--layers 2 --models 4 --methods fisher regmean",
    ),
}
QUICK: dict[str, tuple[str, ...]] = {
    "text": ("--model tiny --prompts 8 --repeats 1",),
    "inversion": ("--model tiny --batch 2 --repeats 1",),
    "embed": ("--model tiny --images 8 --num-workers 0 --repeats 1",),
    "data": ("--images 2 --arrays 8 --side 32 --repeats 1",),
    "retrieval": ("--queries 100 --gallery 100 --dim 16 --classes 10 --repeats 1",),
    "few_shot": ("--methods tip_adapter --against broadcast --images 50 --classes 5 --shots 2 --dim 16 --repeats 1",),
    "metrics": ("--measures iimm all --images 400 --classes 5 --dimensions 16 --stream 1000 --repeats 1",),
    "merging": ("--layers 1 --models 2 --methods copy ties --repeats 1",),
}
MORE: dict[str, tuple[str, ...]] = {  # what --full runs besides
    "text": ("--prompts 397",),
    "inversion": ("--ours cut",),
    "embed": ("--images 1024 --num-workers 4",),
    "data": ("--images 256 --likeness ViT-B-32-quickgelu/random",),
    "retrieval": ("--queries 50000 --gallery 50000 --ours-only --repeats 1",),
    "few_shot": ("--against blocks --ours sweep exact", LARGE_CACHE),
    "metrics": ("--threads 1", "--measures iimm --stream 10000000"),
    "merging": (
        "--methods dare_task_arithmetic magmax dare_ties model_stock tall_mask emr",
        "--models 4 --methods fisher fisher_by_image regmean regmean_plus_plus",
    ),
}
SIZES = ("quick", "default", "full")


@dataclass(frozen=True)
class Bench:
    """One run of a benchmark's module, with these words on its command line."""

    module: str
    words: str

    @property
    def command(self) -> str:
        """What runs it alone."""
        return f"python -m benchmarks.{self.module} {self.words}".rstrip()


def benches(size: str, only: list[str] | None = None) -> list[Bench]:
    """All of a size, or those of some modules."""
    small = QUICK if size == "quick" else DEFAULT
    words = {module: small[module] + (MORE[module] if size == "full" else ()) for module in only or small}
    return [Bench(module, one) for module, each in words.items() for one in each]
