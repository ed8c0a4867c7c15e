from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import onnx
import pytest

if TYPE_CHECKING:
    from pathlib import Path


class MakeModel(Protocol):
    def __call__(
        self, name: str, *, batch: int | str = "N", size: int | str = 8, raw: bool = False, **metadata: str
    ) -> Path: ...


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Writes an ONNX file of one convolution on images, with ``metadata`` under rexport's keys."""

    def make(name: str, *, batch: int | str = "N", size: int | str = 8, raw: bool = False, **metadata: str) -> Path:
        kind = f"uint8[{batch}, {size}, {size}, 3] pixels" if raw else f"float[{batch}, 3, {size}, {size}] images"
        front = "planes = Transpose<perm = [0, 3, 1, 2]>(pixels)  images = Cast<to = 1>(planes)" if raw else ""
        model = onnx.parser.parse_model(f"""
            <ir_version: 9, opset_import: ["": 17]>
            tiny ({kind}) => (float[{batch}, 4] logits) {{
                {front}
                shape = Constant<value_ints = [4, 3, 3, 3]>()
                weight = ConstantOfShape<value = float[1] {{0.1}}>(shape)
                sums = Conv(images, weight)
                pooled = GlobalAveragePool(sums)
                logits = Flatten(pooled)
            }}""")
        onnx.helper.set_model_props(model, {f"rexport.{key}": value for key, value in metadata.items()})
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return make
