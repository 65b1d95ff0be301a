"""The order of the checks, and the output of their findings."""

from typing import Any, Dict, List, Mapping, Optional

from alexnet_estimator import __version__, engine
from alexnet_estimator.errors import UserError
from alexnet_estimator.finding import OK, Finding
from alexnet_estimator.jobs.doctor.machine import examine_machine
from alexnet_estimator.rank_table import Topology
from alexnet_estimator.runtime import find_accelerator, settle_device

REMEDY = "correct the failures above first; see docs/ascend.md"


def examine(
    device: str, topology: Optional[Topology], port: int, environ: Mapping[str, str]
) -> List[Finding]:
    """Check the machine and the accelerator without running anything on it.

    Args:
        device: Value of ``runtime.device``.
        topology: Ranks of the job; None for one rank.
        port: TCP port of the rendezvous; 0 for any free port.
        environ: Environment variables of this process.
    """
    findings = examine_machine(topology, port)
    try:
        device = settle_device(device)
    except UserError as error:
        seen = error.message().splitlines()[0]
        findings.append(Finding("device", "failure", seen, "choose another --device"))
    else:
        findings.append(Finding("device", OK, device))
    if device != "auto":
        findings += find_accelerator(device).examine(environ, topology)
    return findings


def try_out(device: str, findings: List[Finding]) -> List[Finding]:
    """Run the self-test, a short training, unless a check has failed.

    Args:
        device: Value of ``runtime.device``.
        findings: Findings of ``examine``.

    Returns:
        The findings of the self-test.
    """
    if has_failed(findings):
        return [Finding("self-test", "warning", "left out", REMEDY)]
    from alexnet_estimator.jobs.doctor.self_test import run_self_test

    try:
        return run_self_test(settle_device(device))
    except Exception as error:  # A device can fail in any way; the report needs it.
        lines = str(error).splitlines() or [""]
        seen = f"{type(error).__name__}: {lines[0]}"
        return [Finding("self-test", "failure", seen, "see docs/ascend.md, section 7")]


def has_failed(findings: List[Finding]) -> bool:
    """Return whether any finding is a failure; warnings do not count."""
    return any(finding.state == "failure" for finding in findings)


def to_text(findings: List[Finding]) -> str:
    """Return a text with one line for each finding and one for each remedy."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8}{finding.name:<22}{finding.seen}")
        lines += [f"{'':<30}-> {finding.remedy}"] if finding.remedy else []
    return "\n".join(lines)


def to_report(device: str, findings: List[Finding]) -> Dict[str, Any]:
    """Return JSON values that a user can attach to a bug report."""
    return {
        "version": __version__,
        "engine": engine.describe_build(),
        "device": device,
        "findings": [finding._asdict() for finding in findings],
    }
