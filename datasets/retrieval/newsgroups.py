"""``20Newsgroups``: messages to twenty newsgroups, found by a sentence about the group's subject.

Layout, as the archive ``20news-bydate.tar.gz`` unpacks (what scikit-learn's ``fetch_20newsgroups`` downloads and, because it
keeps a pickle instead, is not read from its cache)::

    20Newsgroups/20news-bydate-{train,test}/<group>/<number>

Splits: ``test`` (7532 messages, the published one) and ``train`` (11,314), group by group, each sorted by file name. Messages are
Latin-1, and whole, with their headers; or summaries (:mod:`datasets.retrieval.summaries`). The paper's queries are not
published in words; :data:`QUERIES` are our own, so only orders of magnitude compare with its numbers.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from datasets.places import find
from datasets.retrieval.collection import Collection
from datasets.retrieval.options import Options
from datasets.retrieval.summaries import called, summarised
from datasets.retrieval.task import RetrievalTask, by_label

QUERIES = {
    "alt.atheism": "a message about atheism.",
    "comp.graphics": "a message about computer graphics.",
    "comp.os.ms-windows.misc": "a message about Microsoft Windows.",
    "comp.sys.ibm.pc.hardware": "a message about the hardware of PCs.",
    "comp.sys.mac.hardware": "a message about the hardware of Apple Macintosh computers.",
    "comp.windows.x": "a message about the X Window System.",
    "misc.forsale": "a message about things for sale.",
    "rec.autos": "a message about cars.",
    "rec.motorcycles": "a message about motorcycles.",
    "rec.sport.baseball": "a message about baseball.",
    "rec.sport.hockey": "a message about ice hockey.",
    "sci.crypt": "a message about cryptography.",
    "sci.electronics": "a message about electronics.",
    "sci.med": "a message about medicine.",
    "sci.space": "a message about space.",
    "soc.religion.christian": "a message about Christianity.",
    "talk.politics.guns": "a message about guns and politics.",
    "talk.politics.mideast": "a message about politics in the Middle East.",
    "talk.politics.misc": "a message about politics.",
    "talk.religion.misc": "a message about religion.",
}


def newsgroups_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`. A message's id is ``group/number``."""
    part = f"20news-bydate-{split}"
    root = find(name, data_dir, f"20Newsgroups/{part}", part)
    if wrong := {entry.name for entry in root.iterdir() if entry.is_dir()} ^ QUERIES.keys():
        raise UserError(f"'{root}' does not hold one folder for each of the 20 groups: '{min(wrong)}' is missing or too many.")
    files = [(label, path) for label, group in enumerate(QUERIES) for path in sorted((root / group).iterdir())]
    messages = Collection.of_texts(
        [_message(path) for _, path in files],
        [f"{path.parent.name}/{path.name}" for _, path in files],
        [label for label, _ in files],
    )
    query = Collection.of_texts(list(QUERIES.values()), list(QUERIES), range(len(QUERIES)))
    return by_label(called(name, options.summaries), split, query, summarised(messages, options.summaries))


def _message(path: Path) -> str:
    try:
        return path.read_bytes().decode("latin-1")
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error
