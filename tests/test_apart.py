"""What is to be written is told from what is to be read by what the files are, whatever they are called."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from rexport._apart import READ, READ_IMAGES, WRITE, require_apart, require_files_apart
from rexport._errors import UsageError
from rexport.deploy.inventory import DeviceSelection
from rexport.deploy.payload import BundleOptions
from rexport.deploy.ssh import Access
from rexport.deployment_settings import write_settings
from rexport.engine import BuildOptions
from rexport.engine_file import BackendName
from rexport.jobs.bench import BenchRequest
from rexport.jobs.engine import EngineRequest
from tests._settings import SETTINGS

if TYPE_CHECKING:
    from types import ModuleType

_ROOT = Path(__file__).parents[1]
_SPELLINGS = ["m.onnx", "./m.onnx", "sub/../m.onnx", "{folder}/m.onnx", "link.onnx", "dir/m.onnx", "hard.onnx"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and other names of it, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"no model")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    (tmp_path / "dir").symlink_to(".", target_is_directory=True)
    os.link("m.onnx", "hard.onnx")
    return tmp_path


@pytest.mark.parametrize("written", _SPELLINGS)
@pytest.mark.parametrize("read", _SPELLINGS)
def test_a_file_is_itself_by_any_name(written: str, read: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="to be read and to be written"):
        require_apart([Path(written.format(folder=folder))], [Path(read.format(folder=folder))])


@pytest.mark.parametrize("second", ["new.json", "./new.json", "sub/../new.json", "dir/new.json"])
def test_nothing_is_written_twice(second: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="to be written twice"):
        require_apart([Path("new.json"), Path(second)])


def test_files_of_their_own_may_be_written(folder: Path) -> None:
    (folder / "old.onnx").write_bytes(b"no model")
    require_apart([Path("old.onnx"), Path("new.json")], [Path("m.onnx")], images=[Path(), Path("missing")])


def test_the_message_names_both(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"^link.onnx is the same file as m.onnx, which is both to be read and"):
        require_apart([Path("link.onnx")], [Path("m.onnx")])


def _with_external_data(path: Path, location: str) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = onnx.helper.make_model(graph)
    onnx.save_model(model, path, save_as_external_data=True, location=location, size_threshold=0)


@pytest.mark.parametrize("output", ["big.onnx.data", "dir/big.onnx.data"])
def test_external_data_is_read_with_its_model(output: str, folder: Path) -> None:
    _with_external_data(folder / "big.onnx", "big.onnx.data")
    with pytest.raises(UsageError, match=r"big.onnx.data"):
        require_apart([Path(output)], [Path("big.onnx")])


def test_facts_are_read_with_their_engine(folder: Path) -> None:
    for name in ("m.engine", "m.engine.json", "m.onnx.json"):
        (folder / name).write_bytes(b"")
    with pytest.raises(UsageError, match=r"m.engine.json"):
        require_apart([Path("m.engine.json")], [Path("m.engine")])
    require_apart([Path("m.onnx.json")], [Path("m.onnx")])  # no facts, so any file


def test_the_model_of_settings_and_its_data_are_read_with_it(folder: Path) -> None:
    _with_external_data(folder / "sub" / "big.onnx", "weights")
    settings = replace(SETTINGS, model=replace(SETTINGS.model, file="sub/big.onnx"))
    write_settings(settings, folder / "s.toml")
    for output in ("sub/big.onnx", "sub/weights"):
        with pytest.raises(UsageError, match=output):
            require_apart([Path(output)], [Path("s.toml")])


@pytest.mark.parametrize("picture", ["1.png", "a/1.JPG", "train/a/1.png"])
def test_pictures_of_a_data_set_are_read_and_nothing_else_in_it(picture: str, folder: Path) -> None:
    file = folder / "pictures" / picture
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    beside = file.parent / "m.int8.onnx"
    beside.write_bytes(b"from an earlier run")
    require_apart([beside, file.parent / "new.onnx"], images=[Path("pictures")])
    (folder / "to_it").symlink_to(file)
    for output in (Path("pictures") / picture, Path("to_it")):
        with pytest.raises(UsageError, match="one of the pictures"):
            require_apart([output], images=[Path("pictures")])


def test_a_picture_that_is_a_link_is_read_by_both_names(folder: Path) -> None:
    (folder / "pictures").mkdir()
    (folder / "store.png").write_bytes(b"")
    (folder / "pictures" / "1.png").symlink_to(folder / "store.png")
    for output in ("pictures/1.png", "store.png"):
        with pytest.raises(UsageError, match="one of the pictures"):
            require_apart([Path(output)], images=[Path("pictures")])


@pytest.mark.parametrize("output", ["bundle", "bundle/new", "bundle/a/b", "dir/bundle/new", "bundle/out"])
def test_of_a_folder_that_is_read_all_is(output: str, folder: Path) -> None:
    (folder / "bundle").mkdir()
    (folder / "bundle" / "out").symlink_to(folder / "m.onnx")
    with pytest.raises(UsageError, match="bundle"):
        require_apart([Path(output)], [Path("bundle")])
    require_apart([Path("bundle-2"), Path("sub/bundle")], [Path("bundle")])


def test_where_upper_and_lower_case_are_one_so_are_the_files(folder: Path) -> None:
    if not (folder / "M.ONNX").exists():
        pytest.skip("this file system tells upper case from lower")
    with pytest.raises(UsageError):
        require_apart([Path("M.ONNX")], [Path("m.onnx")])


def _requests() -> list[type]:
    """Return the requests of all jobs."""
    modules = [
        import_module(f"rexport.jobs.{path.stem}") for path in sorted((_ROOT / "exporter/jobs").glob("[a-z]*.py"))
    ]
    return [kind for module in modules for name, kind in vars(module).items() if _is_own_request(module, name, kind)]


def _is_own_request(module: ModuleType, name: str, kind: object) -> bool:
    own = isinstance(kind, type) and kind.__module__ == module.__name__
    return own and name.endswith("Request") and name != "VariantRequest"  # whose files tuning's own request names


@pytest.mark.parametrize("kind", [*_requests(), BundleOptions, BuildOptions, Access, DeviceSelection])
def test_every_field_that_may_name_a_file_says_what_becomes_of_it(kind: type) -> None:
    for field in fields(kind):
        if "Path" in str(field.type):
            assert field.metadata in (READ, READ_IMAGES, WRITE), f"{kind.__name__}.{field.name}: give it a role"


def test_the_files_of_requests_in_a_request_count(folder: Path) -> None:
    options = BuildOptions(backend=BackendName.RTX, timing_cache=Path("m.onnx"))
    with pytest.raises(UsageError, match="both to be read and to be written"):
        require_files_apart(EngineRequest(model=Path("m.onnx"), output=Path("m.engine"), options=options))


def test_text_that_names_no_file_is_not_read(folder: Path) -> None:
    """A network's name stays one where a folder is called so."""
    (folder / "resnet18").mkdir()
    require_files_apart(BenchRequest(models=("resnet18", "-"), output=Path("resnet18/new")))
    with pytest.raises(UsageError):
        require_files_apart(BenchRequest(models=("resnet18", "m.onnx"), markdown=Path("m.onnx")))
