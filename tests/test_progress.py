"""The progress bar appears while work is left, disappears at the end, and can be turned off."""

from __future__ import annotations

import threading

import pytest

from rs_embed.progress import Bar


def test_it_counts_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    with Bar(show=True, unit="place", total=3) as bar:
        bar.advance()
        bar.expect(2)
        bar.advance(3)
        assert threading.active_count() <= before  # it draws when it is told, in no thread
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "places" in shown.err
    assert "places/s" in shown.err
    assert "1/3" in shown.err
    assert "4/5" in shown.err


@pytest.mark.parametrize(("show", "total"), [(False, 9), (None, 9), (True, 1)])
def test_it_is_silent(capsys: pytest.CaptureFixture[str], show: bool | None, total: int) -> None:
    with Bar(show=show, unit="tile", total=total) as bar:  # None: no terminal here
        bar.advance()
    assert capsys.readouterr() == ("", "")
