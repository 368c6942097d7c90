"""Gates: whether a run may ship, each with its reason, and the export behind them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ftlib import deployment
from ftlib.config import ROOT, RunConfig
from ftlib.forgetting import check_gate
from ftlib.release.card import write_card, write_checklist
from ftlib.release.evidence import MEASURED, VERDICT, Pack, warn_if_stale
from ftlib.release.terms import find_term_faults
from ftlib.scoring import Score
from ftlib.scoring.score import TOO_FEW
from ftlib.store import ADAPTER_FOLDER, read_json, write_json

MIN_KEPT = 0.95
"""Of answers in form, and keeping a rule, surely at least this share is wanted."""
OPEN_LICENCES = ("CC0-1.0", "CC-BY-4.0", "Apache-2.0", "MIT", "BSD-3-Clause")
"""Licences that allow any use; what has another one is refused by name."""


@dataclass(frozen=True)
class Gate:
    """One question to a release: its name, whether it passed, and why."""

    name: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """Whether a run may ship: a gate each."""

    gates: tuple[Gate, ...]

    @property
    def ship(self) -> bool:
        """
        Say whether each gate passed.

        Returns
        -------
        bool
            False where even one did not.
        """
        return all(gate.passed for gate in self.gates)

    def __str__(self) -> str:
        """Write the decision as text, with the reason of each gate that failed."""
        failed = [f"- {g.name}: {g.reason}" for g in self.gates if not g.passed]
        return "\n".join(["DO NOT SHIP", *failed]) if failed else "SHIP"


class RefusedError(ValueError):
    """An export that the gates refuse; the message has every reason."""


def judge(pack: Pack, terms: Mapping[str, Any], today: date | None = None) -> Decision:
    """
    Judge a pack by its gates, and keep the decision in it.

    Parameters
    ----------
    pack : Pack
        As `gather` gives it; who overrode an earlier decision stays named in it.
    terms : mapping of str to object
        As `read_terms` gives them.
    today : date, optional
        As for `read_terms`.

    Returns
    -------
    Decision
        As `decide` gives it.

    Raises
    ------
    FileNotFoundError
        When the pack is not whole.
    """
    today = today or date.today()
    decision, earlier = decide(pack, terms, today), pack.read("release")
    kept = asdict(decision) | {"ship": decision.ship, "terms": dict(terms)}
    kept |= {"today": today} | {k: earlier[k] for k in earlier if k == "override"}
    write_json(pack.folder / VERDICT, kept)
    return decision


def decide(pack: Pack, terms: Mapping[str, Any], today: date | None = None) -> Decision:
    """
    Say how a pack fares at its gates; nothing is kept.

    Parameters
    ----------
    pack : Pack
        As `gather` gives it; read from its files.
    terms : mapping of str to object
        As `read_terms` gives them.
    today : date, optional
        As for `read_terms`.

    Returns
    -------
    Decision
        A gate each: fresh, ownership, licence, forgetting, and `MEASURED`. What was
        not measured passes none.

    Raises
    ------
    FileNotFoundError
        When the pack is not whole.
    """
    scores, licences = pack.read_scores("gates"), pack.read("licences")
    stale = warn_if_stale(pack.folder)
    roles = f"{terms.get('approver')} approves for {terms.get('owner')}"
    refused = [
        f"{name} has the licence {licence}, which is not known to allow this use"
        for name, licence in licences.items()
        if licence.casefold() not in map(str.casefold, OPEN_LICENCES)
    ]
    if terms.get("data_rights") == "no training":
        refused.append("data_rights forbid training")
    return Decision(
        (
            _decide("fresh", [stale] if stale else [], "nothing has changed since"),
            _decide("ownership", find_term_faults(terms, today), roles),
            _decide("licence", refused, ", ".join(sorted(set(licences.values())))),
            _decide_forgetting(pack),
            *(_decide_scores(name, scores.get(name, [])) for name in MEASURED),
        )
    )


def _decide(name: str, faults: Sequence[str], says: str) -> Gate:
    return Gate(name, not faults, "; ".join(faults) or says)


def _decide_forgetting(pack: Pack) -> Gate:
    """Refuse what `forgetting.check_gate` refuses, the gain left to its own gate."""
    answered = pack.read("answered")
    if not answered:
        return Gate("forgetting", False, "not measured: give before and after")
    verdict = check_gate(Score("gain", 1.0, TOO_FEW, 1.0, 1.0), **answered)
    summary = {s.name: s for s in pack.read_scores("forgetting")["summary"]}
    return _decide("forgetting", verdict.reasons, str(summary["retention"]))


_Rule = tuple[Callable[[Score], bool], str]
_SILENT: _Rule = (lambda s: s.value == 0, "none may hold an original")
_ABOVE: _Rule = (lambda s: s.low > 0, "its interval must lie above 0")
_KEPT: _Rule = (lambda s: s.low >= MIN_KEPT, f"its interval must reach {MIN_KEPT}")
_RULES = dict(zip(MEASURED, (_SILENT, _SILENT, _ABOVE, _KEPT, _KEPT), strict=True))


def _decide_scores(name: str, scores: Sequence[Score]) -> Gate:
    """Hold each score to its gate's rule; too few items never pass."""
    if not scores:
        return Gate(name, False, "not measured: give its scores")
    holds, wanted = _RULES[name]
    faults = [f"{s}: {wanted}" for s in scores if not holds(s) or s.n < TOO_FEW]
    return _decide(name, faults, "; ".join(map(str, scores)))


def export(
    pack: Pack,
    folder: str | os.PathLike,
    override: tuple[str, str] | None = None,
    today: date | None = None,
) -> Path:
    """
    Export the adapter of a judged pack, with its card, where each gate passes.

    Parameters
    ----------
    pack : Pack
        As `judge` has judged it; it is judged again, by the same terms.
    folder : path
        Where to; see `deployment.export_adapter`.
    override : tuple of (str, str), optional
        Who ships it although a gate failed, and why. Both stand in the card and in
        ``release.json``.
    today : date, optional
        The day to judge on; by default the clock's. A day before that on which it was
        judged counts as that.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RefusedError
        When it was not judged, or a gate fails and nobody overrides it by name and
        with a reason.
    """
    kept = pack.read("release")
    if not kept:
        raise RefusedError("this pack was not judged: call judge first")
    judged = date.fromisoformat(kept["today"])
    decision = judge(pack, kept["terms"], max(judged, today or date.today()))
    if not decision.ship:
        if not override or not all(text.strip() for text in override):
            raise RefusedError(f"{decision}\nTo override, give who decides and why.")
        by, reason = override
        path = pack.folder / VERDICT
        write_json(path, read_json(path) | {"override": {"by": by, "reason": reason}})
    card = write_card(pack).read_text(encoding="utf-8")
    write_checklist(pack)
    run = pack.read("run")
    config = RunConfig(**run["config"])
    if (ROOT / config.model).exists():
        config = config.change(model=str(ROOT / config.model))
    adapter = ROOT / run["folder"] / ADAPTER_FOLDER
    return deployment.export_adapter(adapter, folder, config, card=card)
