r"""Check that an exported file does on this machine what torch did, and measure how fast it is.

FILE is what `iadbe export` wrote: NAME.onnx, or NAME.xml of OpenVINO's pair. Its reference images, NAME.reference.npz,
lie beside it. They are scored with ONNX Runtime or OpenVINO, without torch, and compared with torch's scores, maps and
verdicts. Then a process of its own is timed: cold start, latency at batch 1, throughput at the best batch, memory.

    iadbe verify bottle.onnx --threads 1 --cycle-time 50ms --report acceptance.html

Exit code 1: scores or maps are farther from torch than the file's precision allows, a verdict differs, or the 99 %
quantile of the latency exceeds the cycle time. --key checks the file's signature first. --report writes a certificate,
one HTML file with machine, versions, figures and images.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError
from iadbe.cli.options import parse

if TYPE_CHECKING:
    from iadbe.runtime.verification import Verification

DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)")


def run(arguments: Sequence[str]) -> int:
    """Verify; exit code 1 if the file does not pass."""
    request = parse("verify", __doc__ or "", arguments, _add, form="FILE [options]")
    values = request.values
    if not values["file"]:
        raise UsageError("which file? Give one that `iadbe export` wrote.")
    cycle_time = _seconds(values["cycle_time"]) if values["cycle_time"] else None
    file = system.user_path(values["file"])
    if values["key"]:
        from iadbe.runtime import signature
        from iadbe.runtime.file_parts import parts_of

        signature.verify(parts_of(file), system.user_path(values["key"]))
    from iadbe.runtime.verification import verify

    found = verify(
        file, engine=values["engine"], threads=values["threads"], cycle_time=cycle_time, runs=values["runs"],
        kept=values["references"] or None,
    )  # fmt: skip
    if values["json"]:
        print(json.dumps(_card(found), indent=1))
    else:
        print("\n".join(_lines(found, signed=bool(values["key"]))))
    if values["report"]:
        from iadbe.report import certificate

        report = certificate.write(found, system.user_path(values["report"]))
        print(f"the certificate is in {report}", file=sys.stderr)
    return 0 if found.passed else 1


def _lines(found: Verification, signed: bool) -> list[str]:
    width = 20
    checks = [
        f"{check.name:<{width}}  {check.found}, allowed {check.limit}{'' if check.holds else '  FAILED'}"
        for check in found.checks()
    ]
    figures = [f"{name:<{width}}  {text}" for name, text in found.figures()]
    other = "itself where it was exported" if found.card.get("precision") == "int8" else "torch"
    images = f"{len(found.found)} reference images ({found.references.source}), {found.timing.engine} against {other}"
    machine = found.machine()
    return [
        f"{found.file}: {found.card['detector']}, {found.card.get('precision', 'fp32')}{', signed' if signed else ''}",
        images, *checks, *figures, f"{'processor':<{width}}  {machine['processor']}",
        "passed" if found.passed else "FAILED",
    ]  # fmt: skip


def _card(found: Verification) -> dict[str, object]:
    return {
        "file": str(found.file),
        "sha256": found.digest,
        "passed": found.passed,
        "checks": [asdict(check) for check in found.checks()],
        "deviation": asdict(found.deviation),
        "timing": asdict(found.timing),
        "machine": found.machine(),
    }


def _seconds(text: str) -> float:
    match = DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--cycle-time is a duration such as 50ms or 0.2s, not {text!r}.")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("file", type=str, nargs="?", default="", metavar="FILE", help="an exported file")
    parser.add_argument("--engine", type=str, default="auto", help="onnxruntime or openvino (default: the first here)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the engine (default: its own choice)")
    parser.add_argument("--cycle-time", type=str, default="", metavar="T", help="that p99 must keep, such as 50ms")
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="images that are timed, 30 s at most")
    parser.add_argument("--references", type=str, default="", metavar="FILE", help="reference images elsewhere")
    parser.add_argument("--key", type=str, default="", metavar="FILE", help="public key by which the file is signed")
    parser.add_argument("--report", type=str, default="", metavar="FILE", help="write a certificate (HTML)")
    parser.add_argument("--json", action="store_true", help="print JSON")
