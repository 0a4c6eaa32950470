"""Small things that were computed once, kept in a JSON file for later processes."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from rs_embed.addresses import read_document


class Records:
    """Values by key in a JSON file.

    What cannot be read counts as unknown and what cannot be written is computed again next time, so
    a value must only be one that can be computed anew.

    Parameters
    ----------
    path : pathlib.Path
        The file; it is made with the first value.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> Any:
        """Return the JSON value of ``key``, None if there is none."""
        return self._all().get(key)

    def put(self, key: str, value: Any) -> None:
        """Store a JSON value; the file is replaced as a whole."""
        content = json.dumps({**self._all(), key: value}, indent=1)
        partial = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(content, encoding="utf-8")
            partial.replace(self._path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _all(self) -> dict[str, Any]:
        try:
            records = json.loads(read_document(self._path))
        except (OSError, ValueError, RecursionError):
            return {}
        return records if isinstance(records, dict) else {}
