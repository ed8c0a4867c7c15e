"""What the shell completes."""

from __future__ import annotations

from rexport.cli._options import complete_calibrator, complete_network, complete_runtime, complete_target


def test_completion_of_names() -> None:
    assert complete_network("cifar_resnet2") == ["cifar_resnet20"]
    assert complete_target("x") == ["x86"]
    assert complete_calibrator("m") == ["minmax", "mse"]
    assert complete_runtime("openv") == ["openvino"]


def test_the_last_name_of_a_list_is_completed() -> None:
    assert complete_runtime("cpu,openv") == ["cpu,openvino"]
    assert complete_runtime("cpu,")[0] == "cpu,cpu"
