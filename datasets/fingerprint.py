"""The fingerprint of samples in their order: which they are, what is in them, what they are labelled."""

from __future__ import annotations

import hashlib

DIGEST_BYTES = 32  # of a sample's content (SHA-256)


class Fingerprint:
    """SHA-256 over every sample's id, content and label, in order; samples may come a few at a time.

    >>> of = Fingerprint()
    >>> of.add("cat/1.jpg", 0, bytes(32))
    >>> of.hexdigest()[:8]
    '6fdbb0d2'
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, sample_id: str, label: int, content: bytes) -> None:
        """The next sample; ``content`` is the hash of what is in it."""
        name = sample_id.encode()
        self._digest.update(b"%d %d %s" % (label, len(name), name))
        self._digest.update(content)

    def hexdigest(self) -> str:
        """That of the samples so far."""
        return self._digest.hexdigest()
