"""Imports go one way, as docs/architecture.md says."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[1]

# From the ground up: a layer imports what stands before it, and itself.
_LAYERS = (
    {"device"},
    {"_errors", "_lazy", "_progress", "_version", "_words", "choices"},
    {
        "_child",
        "_cpu",
        "_files",
        "_documents",
        "_onnx_proto",
        "_user_code",
        "_weights_file",
        "class_names",
        "feeds",
        "imagenet",
        "pages",
        "preprocessing",
    },
    {"model_file", "deployment_settings", "engine_file", "_json_cache"},
    {"_apart", "classifier_head", "model_inputs"},
    {"models"},
    {"runtimes"},
    {"passes"},
    {"cost"},
    {"exporting"},
    {"calibration"},
    {"quantization"},
    {"engine"},
    {"evaluation", "training"},
    {"benchmarks"},
    {"tuning"},
    {"deploy"},
    {"inspection"},
    {"jobs"},
    {"cli", "functions"},
    {"studies"},
)
_LEVEL = {name: level for level, names in enumerate(_LAYERS) for name in names}


def _files() -> Iterator[tuple[str, Path]]:
    """Yield every module of the package under the layer it belongs to."""
    for folder, home in (("exporter", None), ("calibration", "calibration"), ("benchmarks", "benchmarks")):
        for file in sorted((_ROOT / folder).rglob("*.py")):
            parts = file.relative_to(_ROOT / folder).with_suffix("").parts
            if home is None and parts in (("__init__",), ("__main__",)):
                continue  # the public surface names every layer, and imports them lazily
            # of the benchmarks, studies and peers try everything, jobs and the command line too
            yield "studies" if parts[0] in ("studies", "peers") else home or parts[0], file


def _imports(source: str) -> set[str]:
    """Return the layers that a module imports, at its top, inside functions, or for its types."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "rexport":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rexport."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("rexport.")}
    return found


def _wrong(layer: str, source: str) -> set[str]:
    return {other for other in _imports(source) if other != layer and _LEVEL[other] >= _LEVEL[layer]}


@pytest.mark.parametrize(("layer", "file"), [pytest.param(la, f, id=str(f.relative_to(_ROOT))) for la, f in _files()])
def test_imports_point_down(layer: str, file: Path) -> None:
    assert _wrong(layer, file.read_text()) == set()


def test_an_import_upwards_is_seen() -> None:
    assert _wrong("passes", "from rexport.cli import main") == {"cli"}
    assert _wrong("models", "def f():\n    import rexport.quantization.schemes") == {"quantization"}
    assert _wrong("models", "from rexport import benchmarks, _errors") == {"benchmarks"}


def test_nothing_is_imported_by_the_name_of_its_folder() -> None:
    by_folder = re.compile(r"^\s*(?:import|from) (?:exporter|calibration|benchmarks|tests)\b", re.MULTILINE)
    assert by_folder.search("from calibration import table")
    for layer, file in _files():
        source = file.read_text()
        if layer == "studies":  # which is not installed
            source = re.sub(r"\bfrom benchmarks\.(studies|peers)\b", "", source)
        assert not by_folder.search(source), file


def test_the_document_names_every_layer() -> None:
    text = (_ROOT / "docs" / "architecture.md").read_text()
    assert [name for name in _LEVEL if f"`{name}`" not in text] == []
