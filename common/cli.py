"""The shell face of every script: how flags are read, how a run ends."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from common import stages
from common.errors import Interrupted, UserError, nearest, of_file_system
from common.help import HelpFormatter


class Parser(argparse.ArgumentParser):
    """An argument parser whose description is the script's docstring. Wrong usage exits with status 2.

    It heeds --profile itself, where the script has it. A flag may also be written with underscores, ``--batch_size 64`` for
    ``--batch-size 64``, as many released codes do.
    """

    def __init__(self, documentation: str | None) -> None:
        # Abbreviations are off: one that works today would mean something else once an argument is added.
        super().__init__(prog=program(), description=documentation, formatter_class=HelpFormatter, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, after a known flag's underscores have become dashes; what follows a lone ``--`` is no flag."""
        words = sys.argv[1:] if args is None else list(args)
        end = words.index("--") if "--" in words else len(words)
        parsed = super().parse_known_args([self._dashed(word) for word in words[:end]] + words[end:], namespace)
        stages.begin(getattr(parsed[0], "profile", False))
        return parsed

    def _dashed(self, word: str) -> str:
        flag, equals, value = word.partition("=")
        dashed = flag.replace("_", "-")
        known = self._option_string_actions
        return dashed + equals + value if flag.startswith("--") and flag not in known and dashed in known else word

    def error(self, message: str) -> NoReturn:
        """One sentence as for any other mistake, without the usage: with forty options it would bury the reason."""
        unknown = re.fullmatch(r"unrecognized arguments: --([^\s=]+).*", message, re.DOTALL)
        flags = [flag[2:] for flag in self._option_string_actions if flag.startswith("--")]
        guess = nearest(unknown[1], flags, 0.6) if unknown else None
        hint = f"did you mean '--{guess}'?" if guess else "--help lists what there is."
        raise UserError(f"{message}; {hint}")


def program() -> str:
    """What the user ran: ``train.py``, or ``python -m benchmarks.text`` for a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec and spec.origin == sys.argv[0] else Path(sys.argv[0]).name


def tuning_flags(args: argparse.Namespace) -> dict[str, object]:
    """The tuning's hyper-parameters that the user typed, where their absence means "as the checkpoint says"."""
    typed = {name: getattr(args, name) for name in ("reduction", "rank", "lora_mlp", "train_blocks")}
    return {name: value for name, value in typed.items() if value not in (None, False)}


@contextmanager
def _profiled() -> Iterator[None]:
    """Where --profile asks for it, the table of stages behind all else on stdout, also of a run that was stopped."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        _print_stages()
        raise
    _print_stages()


def _print_stages() -> None:
    if (profile := stages.end()) is not None and os.environ.get("RANK", "0") == "0":
        from common.stage_table import table

        print(f"\n{table(profile)}", flush=True)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's ``main`` and exit: 0 or what it returns; 2 and one sentence on stderr for a user's mistake.

    SIGTERM ends it by an exception, so that files in the making are tidied away, with status 143, unless what runs heeds it better.
    """
    earlier = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with _profiled():
            status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"{program()}: error: {error}", file=sys.stderr)
        status = 2
    except Interrupted as stopped:
        print(f"{program()}: {stopped}", file=sys.stderr)
        status = 75  # EX_TEMPFAIL: the work is saved, run again
    except KeyboardInterrupt:
        status = 130  # 128 + SIGINT, as a shell reports it
    except BrokenPipeError:
        # The reader (head, less) has left. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141  # 128 + SIGPIPE
    except OSError as error:
        if (mistake := of_file_system(error)) is None:
            raise
        print(f"{program()}: error: {mistake}", file=sys.stderr)
        status = 2
    finally:
        signal.signal(signal.SIGTERM, earlier)
    sys.exit(status)
