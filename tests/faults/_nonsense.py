"""Manifests that an honest vendor would never sign: changes of a good one, and what is none at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["NONSENSE", "NO_MANIFESTS"]

_NAMES = ("../x", "/x", "a/../x", "a//x", ".x", "a\\x", "x\0", "a/b/c/d/e", "C:x", "manifest.json", "ü")


def _with_file(name: str) -> Callable[[dict[str, Any]], object]:
    """Return the change that adds a file of this name."""
    return lambda manifest: manifest["files"].update({name: manifest["files"]["model.onnx"]})


NONSENSE: Sequence[tuple[Callable[[dict[str, Any]], object], str]] = (
    (lambda m: m.update(schema="rexport.bundle/2"), "but of 'rexport.bundle/2'"),
    (lambda m: m.update(run_me="rm"), "has the unknown run_me"),
    (lambda m: m.pop("limits"), "lacks limits"),
    (lambda m: m.update(name="../../etc"), "name is '../../etc'"),
    (lambda m: m.update(version=True), "whole number from 1"),
    (lambda m: m.update(version=0), "whole number from 1"),
    (lambda m: m.update(expires="tomorrow"), "expires is 'tomorrow'"),
    (lambda m: m.update(expires="2027-02-31T00:00:00Z"), "is no time"),
    (lambda m: m.update(model="golden"), "not among its files"),
    (lambda m: m["golden"].update(min_sqnr_db=float("nan")), "NaN is no number"),
    (lambda m: m["golden"].update(same_top1=1), "true or false"),
    (lambda m: m["limits"].update(seconds=1e9), "limits.seconds is 1000000000.0, which has to be a whole number"),
    (lambda m: m["limits"].update(latency_ms=-1), "above 0"),
    (lambda m: m["target"].update(runtimes={}), "runtimes is {}, which has to name some of"),
    (lambda m: m["target"].update(runtimes={"onnxruntime": ["~=1"]}), "target.runtimes.onnxruntime is"),
    *((_with_file(name), "can't be called|would be one") for name in _NAMES),
    (_with_file("MODEL.onnx"), "would be one on some file systems"),
    (_with_file("Model.onnx/x"), "a file and a folder called"),
    (lambda m: m["files"].update({f"f{i}": m["files"]["model.onnx"] for i in range(64)}), "64 files at most"),
)
"""Changes of a manifest that is signed after them, and why it is refused."""

NO_MANIFESTS: Sequence[bytes] = (b"", b"[" * 200_000, b"\xff", b'{"schema": 1, "schema": 1}', b"null", b"[]")
"""What is signed, and no JSON object or no manifest."""
