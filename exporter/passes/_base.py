"""The pass contract.

A pass is one file and one class. It finds the places that it may change (``match``), asks of each whether the algebra
allows it (``check``: a sentence for the user if not), and only then changes the graph (``rewrite``). What it did and
what it refused is its result, as data; a pass keeps no state between calls.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import onnx_ir as ir

from rexport.passes._graph import bypass, name_of, remembered_names, why_not_bypassed

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BypassPass", "GraphPass", "NodePass", "PassReport", "PassResult", "Refusal", "RewritePass"]

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
        name: The name of its class.
        summary: Its purpose, in a line.
        changed: How many places it changed.
        refusals: The places that it left as they were.
        notes: Sentences about its changes that a user should know.
        rolled_back: Why its changes were rolled back, as a sentence; ``None`` if they were not.
    """

    name: str
    summary: str
    changed: int
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    rolled_back: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report for a JSON document."""
        return {
            "name": self.name,
            "changed": self.changed,
            "refused": [{"where": refusal.where, "why": refusal.why} for refusal in self.refusals],
            "notes": list(self.notes),
            "rolled_back": self.rolled_back,
        }


@dataclass
class PassResult(ir.passes.PassResult):
    """onnx_ir's result, with a report."""

    report: PassReport


class GraphPass(ir.passes.InPlacePass):
    """Base class of all passes: named for what it does, changing the model in place.

    ``summary`` states its purpose in a line.
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
        """Return the place at ``node`` that the pass may change, or ``None`` if there is none."""

    def check(self, match: Match) -> str | None:  # noqa: ARG002
        """Return why the change is not allowed, as a sentence for the user, or ``None`` if it is, as by default."""
        return None

    @abstractmethod
    def rewrite(self, match: Match) -> None:
        """Change the graph at a match that was checked."""

    def call(self, model: ir.Model) -> PassResult:
        """Visit the nodes in the order they run: match, check and rewrite."""
        changed, refusals = 0, []
        with remembered_names(model.graph):
            for node in list(model.graph):
                if node.graph is None or (match := self.match(node)) is None:  # or an earlier rewrite took it out
                    continue
                if refusal := self.check(match):
                    refusals.append(Refusal(where=name_of(node), why=refusal))
                else:
                    self.rewrite(match)
                    changed += 1
        return self.result(model, changed=changed, refusals=refusals)


class NodePass(RewritePass[ir.Node]):
    """A pass that needs to know nothing but the node of each place."""

    @abstractmethod
    def matches(self, node: ir.Node) -> bool:
        """Say whether the pass may change ``node``."""

    def match(self, node: ir.Node) -> ir.Node | None:
        """Return the node itself if it matches."""
        return node if self.matches(node) else None


class BypassPass(NodePass):
    """A pass that removes nodes whose first output equals one of their inputs, by default the first."""

    def passed_on(self, node: ir.Node) -> int:  # noqa: ARG002
        """Return the index of the input that equals the output of a node that :meth:`matches`."""
        return 0

    def check(self, match: ir.Node) -> str | None:
        """Allow it unless the node connects an input of the model to an output."""
        return why_not_bypassed(match, self.passed_on(match))

    def rewrite(self, match: ir.Node) -> None:
        """Let its readers read its input."""
        bypass(match, self.passed_on(match))
