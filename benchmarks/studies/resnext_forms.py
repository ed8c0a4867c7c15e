"""ResNeXt-50 written down in the three forms of the paper: what fusion makes of the first two.

    python -m benchmarks.studies.resnext_forms

Form (a) adds 32 branches, form (b) concatenates them, form (c) has grouped convolutions (Xie et al. 2016,
arXiv:1611.05431, figure 3). All three get the same weights, are exported without fusion, fused, and run on the same
pictures. Exporting 1,600 convolutions takes minutes.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import typer

from benchmarks.studies._results import JsonFile, write_results

__all__ = ["main"]

_NETWORK = "resnext[depth=50,form={form}]"
_CARDINALITY = 32


def main(json_file: JsonFile = None) -> None:
    """Export all three and compare them."""
    from rexport.exporting import export
    from rexport.model_file import to_bytes
    from rexport.models import build, convert_form
    from rexport.models.spec import Form
    from rexport.passes import Reference, fuse
    from rexport.preprocessing import Preprocessing
    from rexport.runtimes.onnxruntime import open_session

    weights = build(_NETWORK.format(form=Form.C)).state_dict()
    pictures = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    rows: list[dict[str, Any]] = []
    logits: dict[str, np.ndarray] = {}
    for form in (Form.C, Form.B, Form.A):
        module = build(_NETWORK.format(form=form))
        module.load_state_dict(convert_form(weights, form, cardinality=_CARDINALITY))
        start = perf_counter()
        exported = export(module, preprocessing=Preprocessing.default_for(224), fused=False).model
        exporting, start = perf_counter() - start, perf_counter()
        fused = fuse(exported, reference=Reference(exported)).model
        fusing = perf_counter() - start
        logits[form] = open_session(to_bytes(fused)).run(None, {"images": pictures})[0]
        difference = np.abs(logits[form] - logits[Form.C]).max() / np.abs(logits[Form.C]).max()
        rows.append(
            {
                "form": str(form),
                "nodes_exported": len(exported.graph),
                "nodes": len(fused.graph),
                "difference_from_c": float(difference),
                "export_seconds": exporting,
                "fuse_seconds": fusing,
            }
        )
        print(
            f"form ({form}): {len(exported.graph)} nodes became {len(fused.graph)} in {fusing:.1f} s; "
            f"logits differ from form (c)'s by {difference:.1e}"
        )
    write_results(json_file, "resnext-forms", network=_NETWORK, rows=rows)


if __name__ == "__main__":
    typer.run(main)
