"""Files for other tools are written beside what they were made of, never over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rexport._errors import UsageError
from rexport.deploy._files_for_tools import write_files

if TYPE_CHECKING:
    from pathlib import Path


def test_what_they_were_made_of_stays(tmp_path: Path) -> None:
    bundle = tmp_path / "out" / "files" / "m-1.rxb"
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(b"bundle")
    files = {"first": (b"", 0o644), "files/m-1.rxb": (b"another form", 0o644)}
    with pytest.raises(UsageError, match=r"m-1\.rxb is both to be read and to be written"):
        write_files(tmp_path / "out", files, inputs=[bundle])
    assert bundle.read_bytes() == b"bundle"
    assert not (tmp_path / "out" / "first").exists()
    written = write_files(tmp_path / "new", files, inputs=[bundle])
    assert [path.relative_to(tmp_path / "new").as_posix() for path in written] == list(files)
