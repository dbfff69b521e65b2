"""Get data sets: fetch, check and unpack them where the loaders look for them, or say how to get them by hand.

    python download_datasets.py --list
    python download_datasets.py --list Cars ImageNet
    python download_datasets.py --datasets DTD EuroSAT MNIST --data-dir data
    python download_datasets.py --datasets SVHN@hub
    python download_datasets.py --verify

What is there already is left alone. A download that broke goes on where it broke when the command is run again. What has
no address that a program may use is got by hand: --list NAME says from where and where to put it; archives of such sets that lie
in DATA_DIR/archives/NAME are checked and unpacked by --datasets NAME.

One failure does not stop the others: they are summed up at the end, and the status is 1. NAME@hub is the set of the Hugging Face
hub; NAME@coop needs CoOp's split file besides. Behind a mirror, --manifest FILE names other addresses.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, run
from common.errors import UserError

if TYPE_CHECKING:
    from datasets.downloads.entries import Entry

Wanted = list[tuple["Entry", str | None]]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="what to get; NAME, NAME@coop, NAME@hub")
    parser.add_argument("--all", action="store_true", help="get all that can be fetched: some 130 GB")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--list", nargs="*", metavar="NAME", help="get nothing, but show what there is; with names, all about those")
    parser.add_argument("--verify", nargs="*", metavar="NAME", help="get nothing, but check the files that are there")
    parser.add_argument("--keep-archives", action="store_true", help="leave them in DATA_DIR/archives after unpacking")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="JSON table whose entries take the place of the built-in ones")
    return parser.parse_args()


def main() -> int:
    """List, verify or get, as the command line says; the exit status."""
    args = parse_arguments()
    args.data_dir = args.data_dir.expanduser()
    from datasets.downloads.entries import read_manifest
    from datasets.downloads.manifest import ENTRIES

    entries = ENTRIES | (read_manifest(args.manifest) if args.manifest else {})
    names = check_arguments(args)
    wanted = choose(names, entries)
    if args.list is not None:
        return show(wanted if names else [(entry, None) for entry in entries.values()], args.data_dir, in_full=bool(names))
    if args.verify is not None:
        return verify(wanted or [(entry, None) for entry in entries.values()], args.data_dir, by_name=bool(names))
    if args.all:
        wanted = [(entry, None) for entry in entries.values()]
    return get_all(wanted, args.data_dir, keep_archives=args.keep_archives, by_name=bool(names))


def check_arguments(args: argparse.Namespace) -> list[str]:
    """The names given, after making sure that one thing is asked for."""
    modes = {"--list": args.list is not None, "--verify": args.verify is not None}
    if all(modes.values()):
        raise UserError("--list and --verify are two things to do; give one of them.")
    names = [*(args.datasets or []), *(args.list or []), *(args.verify or [])]
    if args.all and names:
        raise UserError("--all means every data set; leave it out, or the names.")
    if not (args.all or names or any(modes.values())):
        raise UserError("name data sets with --datasets, or give --all, --list or --verify.")
    return names


def choose(names: list[str], entries: dict[str, Entry]) -> Wanted:
    """The entries of the names, each with its split convention; unknown ones are a :class:`UserError`."""
    from datasets.downloads.manifest import find_entry
    from datasets.naming import parse_name
    from datasets.registry import SOURCES, checked_name

    chosen = {}
    for name in names:
        parts = parse_name(name)
        entry = find_entry(name, entries)
        convention = checked_name(name).convention if parts.convention and (parts.base in SOURCES) else parts.convention
        chosen[entry.name, convention] = (entry, convention)
    return list(chosen.values())


def show(wanted: Wanted, data_dir: Path, *, in_full: bool) -> int:
    """Print the table, or all about each."""
    from datasets.downloads.report import instructions, table

    entries = list({entry.name: entry for entry, _ in wanted}.values())
    print("\n\n".join(instructions(entry, data_dir) for entry in entries) if in_full else table(entries, data_dir))
    return 0


def verify(wanted: Wanted, data_dir: Path, *, by_name: bool) -> int:
    """Check what is there; 1 when something is wrong, or a data set that was named is missing."""
    from datasets.downloads.check import problems, state

    failed = 0
    for entry, convention in wanted:
        if (there := state(entry, data_dir, convention)) == "missing" and not by_name:
            continue
        wrong = [f"is {there}"] if there == "missing" else problems(entry, data_dir, convention)
        print(f"{entry.name}: {'; '.join(wrong) or 'all is there'}", flush=True)
        failed += bool(wrong)
    if failed:
        print("Remove what is damaged, and get it again with --datasets NAME.", file=sys.stderr)
    return 1 if failed else 0


def get_all(wanted: Wanted, data_dir: Path, *, keep_archives: bool, by_name: bool) -> int:
    """Get one after the other; 1 when something failed, or what was asked for by name is left to be got by hand."""
    from datasets.downloads.check import state
    from datasets.downloads.get import check_space, get
    from datasets.downloads.report import by_hand_line

    check_space(wanted, data_dir, keep_archives=keep_archives)
    failed, by_hand = [], []
    for entry, convention in wanted:
        if state(entry, data_dir, convention) == "complete":
            print(f"{entry.name}: is there already (--verify checks it)")
            continue
        try:
            if get(entry, convention, data_dir, keep_archives=keep_archives, say=lambda line: print(line, flush=True)):
                print(f"{entry.name}: done")
            else:
                by_hand.append(by_hand_line(entry, data_dir))
        except (UserError, OSError) as error:
            failed.append(f"{entry.name} failed: {error}")
            print(failed[-1], file=sys.stderr, flush=True)
    if left := [*failed, *by_hand]:
        print(f"{len(wanted) - len(left)} of {len(wanted)} data sets are complete. Not so:", *left, sep="\n  ", file=sys.stderr)
    return 1 if failed or (by_hand and by_name) else 0


if __name__ == "__main__":
    run(main)
