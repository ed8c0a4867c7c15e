"""The pass contract.

A pass is one file and one class. It finds the places it is for (``match``), says of each whether the algebra
allows the change (``check``: a sentence for the user if not), and only then changes the graph (``rewrite``).
What it did and what it refused is its result, as data; a pass keeps no state between calls.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import onnx_ir as ir

from rexport.passes._graph import name_of, remembered_names

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GraphPass", "PassReport", "PassResult", "Refusal", "RewritePass"]

Match = TypeVar("Match")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A place that a pass left as it was: ``where`` (the node's name or its output) and ``why``, a sentence."""

    where: str
    why: str


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """What one pass did.

    Attributes:
        name: Of its class.
        summary: What it is for, in a line.
        changed: How many places it changed.
        refusals: Those that it left as they were.
        notes: What else a user should know of its changes, in sentences.
        rolled_back: Why what it changed was taken back, as a sentence; ``None`` if it was not.
    """

    name: str
    summary: str
    changed: int
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    rolled_back: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        return {
            "name": self.name,
            "changed": self.changed,
            "refused": [{"where": refusal.where, "why": refusal.why} for refusal in self.refusals],
            "notes": list(self.notes),
            "rolled_back": self.rolled_back,
        }


@dataclass
class PassResult(ir.passes.PassResult):
    """onnx_ir's result with our report."""

    report: PassReport


class GraphPass(ir.passes.InPlacePass):
    """Base class of all passes: named for what it does, changing the model in place.

    ``summary`` says in a line what it is for.
    """

    summary: ClassVar[str]

    def __call__(self, model_or_result: ir.Model | ir.passes.PassResult, /) -> PassResult:
        """Run the pass with onnx_ir's checks of ``requires`` and ``ensures`` around it."""
        result = super().__call__(model_or_result)
        assert isinstance(result, PassResult)
        return result

    @abstractmethod
    def call(self, model: ir.Model) -> PassResult:
        """Change the model and report."""

    def result(
        self, model: ir.Model, *, changed: int, refusals: Iterable[Refusal] = (), notes: Iterable[str] = ()
    ) -> PassResult:
        """Return what :meth:`call` returns, once the model is changed."""
        name, summary = type(self).__name__, self.summary
        report = PassReport(name=name, summary=summary, changed=changed, refusals=tuple(refusals), notes=tuple(notes))
        return PassResult(model, modified=changed > 0, report=report)


class RewritePass(GraphPass, Generic[Match]):
    """A pass that visits every node once, in order, and treats each match by itself."""

    @abstractmethod
    def match(self, node: ir.Node) -> Match | None:
        """Return what the pass needs to know of the place at ``node``, or ``None`` if it is no place for it."""

    @abstractmethod
    def check(self, match: Match) -> str | None:
        """Return why the change is not allowed, as a sentence for the user, or ``None`` if it is."""

    @abstractmethod
    def rewrite(self, match: Match) -> None:
        """Change the graph at a match that was checked."""

    def visit_order(self, graph: ir.Graph) -> Iterable[ir.Node]:
        """Return the nodes in the order to visit them: as they run."""
        return list(graph)

    def call(self, model: ir.Model) -> PassResult:
        """Visit, match, check and rewrite."""
        changed, refusals = 0, []
        with remembered_names(model.graph):
            for node in self.visit_order(model.graph):
                if node.graph is None:  # an earlier rewrite took it out
                    continue
                found = self.match(node)
                if found is None:
                    continue
                why = self.check(found)
                if why is None:
                    self.rewrite(found)
                    changed += 1
                else:
                    refusals.append(Refusal(where=name_of(node), why=why))
        return self.result(model, changed=changed, refusals=refusals)
