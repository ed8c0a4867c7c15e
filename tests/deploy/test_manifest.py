"""A manifest is read back as it was, and nothing that only looks like one is read at all."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport._errors import BundleError
from rexport.deploy.manifest import from_bytes, require_names, to_bytes
from rexport.device._container import LIMITS
from rexport.device._manifest import Engine, FileEntry, Limits
from tests.deploy._bundles import FILES, manifest
from tests.faults._nonsense import NONSENSE

if TYPE_CHECKING:
    from collections.abc import Callable

_FACTS = {name: FileEntry(bytes=len(data), sha256="0" * 64) for name, data in FILES.items()}
_WHOLE = manifest(files=_FACTS)
_TIMES = st.datetimes(datetime(2000, 1, 1), datetime(9999, 1, 1)).map(lambda time: time.replace(microsecond=0))


@settings(deadline=None, max_examples=50)
@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
    version=st.integers(1, 2**31 - 1),
    expires=st.none() | _TIMES.map(lambda time: time.replace(tzinfo=UTC)),
    latency=st.none() | st.floats(1e-3, 1e6),
    capabilities=st.lists(st.integers(50, 130), max_size=4).map(tuple),
)
def test_it_is_read_back_as_it_was(
    name: str, version: int, expires: datetime | None, latency: float | None, capabilities: tuple[int, ...]
) -> None:
    engine = Engine(file="golden/input.npy", backend="rtx", version="1.7.1.116", capabilities=capabilities)
    written = _WHOLE._replace(
        name=name,
        version=version,
        expires=expires,
        engines=(engine,),
        limits=Limits(latency_ms=latency),
    )
    data = to_bytes(written)
    read = from_bytes(data)
    assert read == written._replace(sha256=hashlib.sha256(data).hexdigest())
    assert to_bytes(read) == data
    assert data.endswith(b"\n}\n")


def _changed(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        inner: Any = document
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


_FILE = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *NONSENSE,
        (_changed("name", value="Tiny"), "name is 'Tiny'"),
        (_changed("name", value="tiny\n"), "name is"),
        (_changed("version", value=1.0), "from 1 to"),
        (_changed("version", value=2**31), "from 1 to"),
        (_changed("expires", value="2027-11-27"), "expires"),
        (_changed("target", value=None), "target is not an object"),
        (_changed("target", "more", value=1), "has the unknown target.more"),
        (_changed("target", "machines", value=[]), "names no machine"),
        (_changed("target", "runtimes", value={"sh": []}), "has to name some of"),
        (_changed("model", value=["model.onnx"]), "not among its files"),
        (_changed("engines", value=[{"file": "model.onnx"}]), r"lacks engines\[0\]\.backend"),
        (_changed("golden", "min_sqnr_db", value="30"), "golden.min_sqnr_db"),
        (_changed("golden", "min_sqnr_db", value=10**400), "golden.min_sqnr_db"),
        (_changed("golden", "others", value=["p4"]), "golden.others is not an object"),
        (_changed("golden", "others", value={"p" * 257: "model.onnx"}), "golden.others is not an object"),
        (_changed("golden", "others", value={"p4": "other.npy"}), "golden.others.p4 .* is not among its files"),
        (_changed("head", value="scores"), "head"),
        (_changed("limits", "latency_ms", value=0), "above 0"),
        (_changed("limits", "seconds", value=3601), "from 1 to 3600"),
        (_changed("limits", "memory_mib", value=15), "from 16 to"),
        (_changed("preprocessing", "takes", value="sounds"), "preprocessing.takes"),
        (_changed("preprocessing", "resize", value=7), "smaller than its size"),
        (_changed("preprocessing", "std", value=[1, 0, 1]), "3 numbers above 0"),
        (_changed("files", value=[]), "files is not an object"),
        (_changed("files", value={}), "names no file"),
        (_changed("files", "model.onnx/a", value=_FILE), "a file and a folder"),
        (_changed("files", "model.onnx", "sha256", value="0" * 63), "files.model.onnx.sha256"),
        (_changed("files", "model.onnx", "bytes", value=-1), "files.model.onnx.bytes"),
        (_changed("files", "model.onnx", "bytes", value=2**32 - 1), "4 GiB"),
    ],
)
def test_what_may_not_be_is_refused(change: Callable[[dict[str, Any]], object], reason: str) -> None:
    document = json.loads(to_bytes(_WHOLE))
    change(document)
    with pytest.raises(BundleError, match=reason):
        from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not strict JSON"),
        (b"\xff", "not strict JSON"),
        (b"[" * 100_000, "not strict JSON"),
        (b'{"schema": NaN}', "NaN is no number"),
        (b'{"schema": "rexport.bundle/1", "schema": "rexport.bundle/1"}', "a key stands twice"),
        (b"[]", "is not of schema"),
        (b" " * (LIMITS["manifest.json"] + 1), "262,144 at most"),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        from_bytes(data)


def test_more_files_than_a_device_takes() -> None:
    require_names([str(index) for index in range(64)])
    with pytest.raises(BundleError, match="64 files at most"):
        require_names([str(index) for index in range(65)])


def test_what_could_not_be_read_is_not_written() -> None:
    with pytest.raises(BundleError, match="not among its files"):
        to_bytes(_WHOLE._replace(classes="classes.json"))


def test_what_no_device_takes_is_not_written() -> None:
    half = FileEntry(bytes=2**31 - 2**18, sha256="0" * 64)
    large = {**_FACTS, "model.onnx": half, "classes.json": half}
    with pytest.raises(BundleError, match=r"Devices would refuse this bundle: its files have more than the 4 GiB"):
        to_bytes(_WHOLE._replace(files=large))
