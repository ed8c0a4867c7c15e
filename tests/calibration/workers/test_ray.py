from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rexport import Preprocessing
from rexport._errors import DataError, RexportError, UnavailableError
from rexport.calibration import calibrate_dataset, open_dataset
from rexport.calibration.workers import LocalWorkers, RayWorkers
from tests._graphs import convolution, graph
from tests.calibration.workers._works import Squares, WhichNode, onnxruntime_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

pytestmark = pytest.mark.slow
_ROOT = Path(__file__).parents[3]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes with one CPU each, processes of this machine."""
    utilities = pytest.importorskip("ray.cluster_utils", reason="needs Ray: pip install 'rexport[ray]'")
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))  # so that workers find the tests
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    # a node counts as lost after five checks in a row: a second and a half, not fifteen
    head = {**node, "include_dashboard": False, "_system_config": {"health_check_period_ms": 300}}
    cluster = utilities.Cluster(initialize_head=True, head_node_args=head)
    cluster.second = cluster.add_node(**node)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


class _LosesANode:
    """Ray workers, one of whose nodes is pulled out as soon as it has given a result."""

    threads = 1

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._workers = RayWorkers(threads=1, address=cluster.address)
        self.lost = False

    def map(self, work: Any, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        for index, result in self._workers.map(work, items):
            if not self.lost and self._is_of_second_node(result):
                self._cluster.remove_node(self._cluster.second, allow_graceful=False)
                self.lost = True
            yield index, result

    def _is_of_second_node(self, result: Any) -> bool:
        return not isinstance(result, str) or result == self._cluster.second.node_id


def test_a_node_that_is_lost_loses_nothing(cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    losing = _LosesANode(cluster)
    nodes = dict(losing.map(WhichNode(seconds=0.5), range(12)))
    assert sorted(nodes) == list(range(12))
    assert losing.lost
    assert len(set(nodes.values())) == 2
    # it gave one result, perhaps a second that was on its way; what it had under way the other node did
    assert list(nodes.values()).count(cluster.second.node_id) <= 2

    # the table on what is left of the cluster, and once more with a second node that is lost
    model = graph(
        "a = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(a) p = GlobalAveragePool(r) y = Flatten(p)",
        {"w": convolution(8, 3)},
        outputs="float[N, 8] y",
    )
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    dataset = open_dataset(tmp_path / "a.npy", Preprocessing(size=16))
    local = calibrate_dataset(
        model, dataset, workers=LocalWorkers(threads=1), checkpoints=tmp_path / "1"
    ).table.to_json()
    cluster.second = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    losing = _LosesANode(cluster)
    result = calibrate_dataset(model, dataset, workers=losing, checkpoints=tmp_path / "2")
    assert losing.lost
    assert result.table.to_json() == local

    # what the work raises arrives as it is, and without memory it is tried again
    with pytest.raises(DataError, match="3 is refused"):
        dict(RayWorkers(threads=1, address=cluster.address).map(Squares(marks=tmp_path, refused=3), range(5)))
    errors: list[tuple[Callable[[str], Exception], type[Exception], int]]
    errors = [(EOFError, EOFError, 1), (onnxruntime_out_of_memory, RexportError, 2)]
    for error, expected, tries in errors:
        marks = tmp_path / f"tried-{tries}"
        marks.mkdir()
        workers = RayWorkers(threads=1, count=1, address=cluster.address, retries=1)
        with pytest.raises(expected, match="3 is refused"):
            dict(workers.map(Squares(marks=marks, refused=3, error=error), range(5)))
        assert len(list(marks.iterdir())) == tries
    with closing(RayWorkers(threads=1, address=cluster.address).map(WhichNode(seconds=0.1), range(100))) as results:
        next(results)
    assert capfd.readouterr().out == ""  # which is for results


def test_no_cluster_at_an_address_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'rexport[ray]'")
    with pytest.raises(UnavailableError, match=r"no Ray cluster at 127.0.0.1:1 to connect to"):
        dict(RayWorkers(threads=1, address="127.0.0.1:1").map(Squares(marks=tmp_path), [1]))
