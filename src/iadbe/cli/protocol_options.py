"""The options that make a protocol: view, alignment, budget, precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from iadbe import protocol
from iadbe.cli import UsageError
from iadbe.errors import BadConfig
from iadbe.protocol import Limits, Protocol, Tiling

OF_VIEW = ("size", "fit", "align", "align_limits", "tiles", "overlap", "tiling", "native")
OF_PROTOCOL = ("protocol", *OF_VIEW, "budget", "precision", "accumulate")


def is_given(values: Mapping[str, Any]) -> bool:
    """Return whether any option of :func:`add_protocol` was given."""
    return any(values.get(name) not in (None, "", 0, False) for name in OF_PROTOCOL if name != "overlap") or (
        values.get("overlap") is not None
    )


def add_protocol(group: Any, default: str) -> None:
    """Add the options that :func:`protocol_of` reads."""
    group.add_argument(
        "--protocol", type=str, default=default, help="uniform, uniform@SIZE,FIT,aligned,native or paper"
    )
    add_size(group)
    group.add_argument(
        "--budget", type=str, default="", metavar="TIME", help="of a fit's training: 10m, or 10cpu-m of CPU time"
    )
    group.add_argument("--precision", type=str, default="", help="of training: fp32, bf16 or fp16")
    group.add_argument(
        "--accumulate", type=int, default=0, metavar="N", help="batches whose mean gradient one step takes"
    )


def add_size(parser: Any) -> None:
    """Add the options of the view, for :func:`protocol_of`."""
    parser.add_argument(
        "--size",
        type=int | str,
        metavar="PIXELS",
        help="short for --protocol uniform@PIXELS; or WIDTHxHEIGHT; or native: the images' own size",
    )
    parser.add_argument("--fit", type=str, default="", help="of other aspect ratios into the view: squash, pad or crop")
    parser.add_argument("--align", type=str, default="", help="template: register images to a reference first; or none")
    parser.add_argument(
        "--align-limits",
        type=str,
        default="",
        metavar="DEGREES/SHIFT/SCALE",
        help="how far parts are turned, shifted (share of the image), larger or smaller (default: 30/0.15/0)",
    )
    parser.add_argument(
        "--tiles",
        type=str,
        default="",
        metavar="SIDE",
        help="cut the view into tiles of SIDE pixels, such as 512; or auto",
    )
    parser.add_argument("--overlap", type=int, metavar="PIXELS", help="of tiles (default: an eighth of their side)")
    parser.add_argument("--tiling", type=str, default="", help="shared: one detector for all tiles; position: one each")
    parser.add_argument("--native", action="store_true", help="pixel metrics at the images' own sizes")


def protocol_of(values: Mapping[str, Any]) -> str:
    """Return the protocol that ``--protocol`` and the other options of :func:`add_protocol` mean together."""
    try:
        given = Protocol.parse(values.get("protocol", "uniform"))
        if values["size"] is not None:
            height, width = protocol.sides(str(values["size"]))
            given = replace(given, kind="uniform", size=height, width=width)
        if values.get("fit"):
            given = replace(given, fit=values["fit"])
        if values.get("align") or values.get("align_limits"):
            given = replace(given, align=_limits(values.get("align") or "template", values.get("align_limits") or ""))
        given = replace(given, tiling=_tiling(values, given.tiling))
        if values.get("native"):
            given = replace(given, native=True)
        if values.get("budget"):
            given = replace(given, budget=protocol.Budget.parse(values["budget"]))
        if values.get("precision"):
            given = replace(given, precision=values["precision"])
        if values.get("accumulate"):  # 0: not given
            given = replace(given, accumulate=values["accumulate"])
    except BadConfig as error:
        raise UsageError(str(error)) from error
    return str(given)


def _limits(align: str, limits: str) -> Limits | None:
    """Read ``--align`` and ``--align-limits``; None: images are not registered."""
    if align not in ("template", "none") or (align == "none" and limits):
        raise UsageError(f"--align is template or none, and limits need template, not {align} {limits}".rstrip() + ".")
    return None if align == "none" else Limits.parse(limits) if limits else Limits()


def _tiling(values: Mapping[str, Any], given: Tiling | None) -> Tiling | None:
    """Read ``--tiles``, ``--overlap`` and ``--tiling``; None: the view is seen whole."""
    tiling = Tiling.parse(values["tiles"]) if values.get("tiles") else given
    kind, overlap = values.get("tiling") or "", values.get("overlap")
    if kind not in ("", "shared", "position"):
        raise UsageError(f"--tiling is shared or position, not {kind!r}.")
    if tiling is None:
        if kind or overlap is not None:
            raise UsageError("--overlap and --tiling say how tiles lie: give --tiles SIDE, too.")
        return None
    by_position = tiling.by_position if not kind else kind == "position"
    return replace(tiling, by_position=by_position, overlap=tiling.overlap if overlap is None else overlap)
