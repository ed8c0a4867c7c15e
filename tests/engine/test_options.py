from __future__ import annotations

import pytest

from rexport._errors import UnavailableError, UsageError
from rexport.engine.options import BatchRange, BuildOptions, batch_of, check_capabilities
from rexport.engine_file import BackendName
from tests._graphs import graph

RTX, TENSORRT = BackendName.RTX, BackendName.TENSORRT


@pytest.mark.parametrize(("text", "batch"), [("8", (8, 8, 8)), ("1:4:8", (1, 4, 8)), ("2:2:2", (2, 2, 2))])
def test_batches(text: str, batch: tuple[int, int, int]) -> None:
    parsed = BatchRange.parse(text)
    assert (parsed.least, parsed.best, parsed.most) == batch
    assert BatchRange.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["", "0", "a", "1:2", "4:2:8", "1:9:8", "1:2:3:4", "-1"])
def test_batches_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="such as 1:8:32"):
        BatchRange.parse(text)


def test_a_fixed_batch_is_the_engines() -> None:
    some, four = BatchRange.parse("1:8:32"), BatchRange.parse("4")
    anything = graph("y = Relu(x)", inputs="float[N, 3, 8, 8] x", outputs="float[N, 3, 8, 8] y")
    assert (batch_of(anything, None), batch_of(anything, some)) == (BatchRange.parse("1"), some)
    fixed = graph("y = Relu(x)", inputs="float[4, 3, 8, 8] x", outputs="float[4, 3, 8, 8] y")
    assert batch_of(fixed, None) == batch_of(fixed, four) == four
    with pytest.raises(UsageError, match="--batch 1:8:32: the file takes batches of 4 only"):
        batch_of(fixed, some)


def test_capabilities() -> None:
    assert check_capabilities(RTX, ()) == (80, 86, 89, 120)
    assert check_capabilities(RTX, (89, 86, 89)) == (86, 89)
    assert check_capabilities(RTX, (75,)) == (75,)
    assert check_capabilities(TENSORRT, ()) == ()


@pytest.mark.parametrize(
    ("capability", "words"),
    [(90, "data-center GPU; build there"), (87, "a Jetson; deploy the ONNX file"), (70, "name one of these")],
)
def test_what_rtx_lacks_says_what_to_use(capability: int, words: str) -> None:
    with pytest.raises(UnavailableError, match=words):
        check_capabilities(RTX, (86, capability))


def test_turing_is_built_apart() -> None:
    with pytest.raises(UsageError, match="one with --sm 75, one with --sm 86,89"):
        check_capabilities(RTX, (75, 86, 89))


def test_tensorrt_builds_for_the_gpu_that_is_here() -> None:
    with pytest.raises(UsageError, match="leave --sm out"):
        check_capabilities(TENSORRT, (86,))


def test_numbers_out_of_range() -> None:
    with pytest.raises(UsageError, match="at least 1 MiB"):
        BuildOptions(backend=RTX, workspace_mib=0)
    with pytest.raises(UsageError, match="from 0 to 5"):
        BuildOptions(backend=RTX, optimization_level=6)
