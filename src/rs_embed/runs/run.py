"""One durable run: each result is on disk before the next, and the same call continues it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rs_embed.embedding.identity import which_weights
from rs_embed.errors import CheckpointError, ExportError
from rs_embed.runs.journal import SHARED, Journal, JournalResult, discard, shown_differences

if TYPE_CHECKING:
    from rs_embed.embedding.task import Task
    from rs_embed.runs.mirror import Mirror

logger = logging.getLogger("rs_embed.runs")


def partial_path(path: Path) -> Path:
    """Return where the results of an unfinished run are kept, beside its output."""
    return path.with_name(f"{path.name}.partial")


def is_finished(path: Path, *, overwrite: bool) -> bool:
    """Return whether an output exists, is finished, and is not to be replaced."""
    return path.exists() and not overwrite and not partial_path(path).exists()


def check_unfinished(path: Path, *, overwrite: bool) -> None:
    """Raise `ExportError` if an output exists and is finished, unless it is to be replaced."""
    if is_finished(path, overwrite=overwrite):
        raise _finished(path)


def kept_in(partial: Path) -> tuple[dict[str, Any], list[JournalResult]]:
    """Return what the items of an unfinished run share, and what is kept of them.

    Raises
    ------
    ExportError
        If it is not what a run has kept, is damaged, or is in use by another process.
    """
    with Journal(partial, None) as journal:
        kept = {result.key: result for result in journal.results(journal.keys())}
    shared = kept.pop(SHARED, None)
    return dict((shared and shared.meta) or {}), list(kept.values())


def check_same(
    path: Path | str, stored: Mapping[str, Any] | None, request: Mapping[str, Any], task: Task
) -> None:
    """Raise `ExportError` unless a finished output is what this request gives, and log that it is.

    ``stored`` is its request and its weights; None if it states none, or is not complete.
    """
    if stored is None:
        raise _finished(path)
    weights = {name: stored.get(name) for name in which_weights({})}
    differing = shown_differences(stored, {**json.loads(json.dumps(request)), **weights})
    if not differing:
        differing = shown_differences(weights, which_weights(task.plan.load().provenance))
    if differing:
        raise _finished(path, f", with another request ({differing})")
    logger.info("%s is finished already", path)


def _finished(path: Path | str, why: str = "") -> ExportError:
    return ExportError(
        f"{path} exists already and is finished{why}; choose another name, or replace it with "
        "overwrite=True (--overwrite)"
    )


class DurableRun:
    """The items of one output, kept in ``<output>.partial`` until the output is written.

    A context manager; nothing on disk changes before it is entered. The same request continues
    an unfinished run, another one is refused, and no two processes work on the same output. What
    a person should know (what is done already, what is kept after an interruption) is logged by
    the logger ``rs_embed.runs`` at level INFO.

    Parameters
    ----------
    path : pathlib.Path
        The output.
    identity : mapping
        Everything that determines the results, as JSON values.
    keys : iterable of str
        Names of the items, in order.
    items : tuple of str
        What one item and several items are called.
    overwrite : bool
        Whether to delete what an unfinished run has kept, and to replace a finished output.
    mirror : Mirror, optional
        The store on which the output, and until then what is kept, is written as well.

    Attributes
    ----------
    partial : pathlib.Path
        Where results are kept.
    fresh, failed_before : tuple of str
        Items still to be made, and to be tried again after the fresh ones: those are then made in
        the same order as if nothing had failed.
    resumed : int
        Items that earlier runs have done.
    kept : int
        Items that are done by now.
    shared : dict or None
        What is the same for all items, see `keep`.

    Raises
    ------
    ExportError
        If the output exists and is finished. When entered: if it cannot be written, or what is
        kept belongs to another request, is damaged, or is in use by another process.
    """

    _journal: Journal

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        keys: Iterable[str],
        *,
        items: tuple[str, str],
        overwrite: bool = False,
        mirror: Mirror | None = None,
    ) -> None:
        self.path, self.partial = path, partial_path(path)
        self._mirror = mirror
        self._request = json.dumps(identity)
        self._keys = dict.fromkeys(keys)
        self._items = items
        self._overwrite = overwrite
        self._disposable = self._incomplete = False
        self.fresh: tuple[str, ...] = ()
        self.failed_before: tuple[str, ...] = ()
        self.resumed = self.kept = 0
        self.shared: dict[str, Any] | None = None
        check_unfinished(path, overwrite=overwrite)

    def remaining(self) -> int:
        """Return how many items are still to be made, without entering; nothing changes on disk."""
        if self._overwrite or not self.partial.exists():
            return len(self._keys)
        with Journal(self.partial, self._request) as journal:
            return len(self._keys.keys() - journal.done())

    def __enter__(self) -> Self:
        if self._overwrite:
            discard(self.partial)
        self._journal = Journal(self.partial, self._request)
        if self._journal.is_new and self.path.exists() and not self._overwrite:
            self._journal.delete()  # another process has finished meanwhile
            check_unfinished(self.path, overwrite=False)
        try:
            done, failed = self._journal.done(), self._journal.failed()
            for record in self._journal.results([SHARED] if SHARED in done else []):
                self.shared = dict(record.meta or {})
            if self._mirror is not None:
                self._mirror.begin(self._request, anew=self._journal.is_new)
        except BaseException:
            self._journal.close()
            raise
        self.fresh = tuple(key for key in self._keys if key not in done and key not in failed)
        self.failed_before = tuple(key for key in self._keys if key in failed)
        self.resumed = self.kept = len(done & self._keys.keys())
        if self.resumed:
            logger.info("resuming: %s done", self._counted(self.resumed))
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        disposable = self._disposable
        try:
            done = self._journal.done() - {SHARED}
            self.kept = len(done & self._keys.keys())
            # A file that holds nothing must not refuse a corrected request; but it marks an output
            # that was written without the items that failed as one to be completed.
            disposable = disposable or not (done or self._incomplete)
        finally:
            if disposable:
                self._journal.delete()
            else:
                self._journal.close()
        if self._mirror is not None:
            self._mirror.close(disposable=disposable)
        if exc is None or self._disposable:
            return
        interrupted = isinstance(exc, KeyboardInterrupt)
        if interrupted or self.kept:
            why = "interrupted" if interrupted else "stopped"
            logger.info("%s: %s kept; %s to continue", why, self._counted(self.kept), self._again())

    def check_weights(self, provenance: Mapping[str, Any]) -> None:
        """Raise `CheckpointError` if kept items were made with other weights of the same name."""
        weights = which_weights(provenance)
        before = weights if self.shared is None else which_weights(self.shared)
        if weights != before:
            raise CheckpointError(
                f"got weights {weights}, but the {self._items[1]} kept in {self.partial} were made "
                f"with {before} under the same name; restore those weights, or start again with "
                "overwrite=True (--overwrite)"
            )

    def keep(
        self, results: Sequence[JournalResult], shared: Mapping[str, Any] | None = None
    ) -> None:
        """Write results to disk: all of them or, if the process ends meanwhile, none.

        Parameters
        ----------
        results : sequence of JournalResult
            What was made.
        shared : mapping, optional
            JSON values that are the same for all items, with the provenance of the weights. The
            first one is kept, later ones are ignored.

        Raises
        ------
        ExportError
            If the disk is full.
        """
        if self.shared is None and shared is not None:
            record = JournalResult(SHARED, np.zeros(0, np.float32), shared)
            self._journal.add(record, *results)
            self.shared = dict(shared)
        else:
            self._journal.add(*results)
        if self._mirror is not None:
            self._mirror.keep(results, self.shared)
        self.kept += sum(result.error is None for result in results)

    def results(self, keys: Iterable[str] | None = None) -> Iterator[JournalResult]:
        """Yield what is kept of each of ``keys``, of all items if not given, in their order.

        Raises
        ------
        ExportError
            If there is nothing for a key, or it is damaged.
        """
        return self._journal.results(list(self._keys if keys is None else keys))

    def metas(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield key and meta of each item that has one, in their order; vectors are not read."""
        return self._journal.metas(self._keys)

    def failed(self) -> dict[str, str]:
        """Return the items that failed, and why."""
        failed = self._journal.failed()
        return {key: why for key, why in failed.items() if key in self._keys}

    def damaged(self, reason: str) -> ExportError:
        """Return the error for kept results that cannot be used."""
        return self._journal.damaged(reason)

    def finished(self, *, disposable: bool) -> None:
        """Note the end of the work; delete what is kept on exit if it is ``disposable``."""
        if self._mirror is not None and self.path.exists():
            self._mirror.publish(self.path)
        self._disposable, self._incomplete = disposable, not disposable
        if not disposable:
            failed = len(self._keys) - self.kept
            logger.info("%s; %s to retry", self._number(failed, " failed"), self._again())

    def _counted(self, count: int) -> str:
        return f"{self._number(count)} {'is' if count == 1 else 'are'}"

    def _number(self, count: int, suffix: str = "") -> str:
        total = len(self._keys)
        return f"{count} of {total} {self._items[total != 1]}{suffix}"

    def _again(self) -> str:
        return f"run it again{' without overwrite' if self._overwrite else ''}"
