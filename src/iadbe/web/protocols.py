"""The route that reads the fields of a protocol, as the form of a new run has them, and says what is wrong with each.

The grammar is that of :mod:`iadbe.protocol` alone: pages send the fields as they are typed, and show the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from iadbe.errors import BadConfig
from iadbe.protocol import AUTO, NATIVE, Budget, Limits, Protocol, Tiling, sides
from iadbe.web.grid_request import check_protocol
from iadbe.web.number_ranges import check_number, whole_number

router = APIRouter(tags=["detectors"])
Text = Annotated[str, Field(max_length=40)]
MAX_BATCHES = 100_000


class ProtocolFields(BaseModel):
    """A protocol in parts, as text; empty: the default."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["uniform", "paper"] = "uniform"
    size: Text = Field("", description="of the uniform protocol: 512, or 512x256 in width and height, or native")
    fit: Literal["squash", "pad", "crop"] = Field("squash", description="of the uniform protocol")
    native: bool = Field(False, description="pixel metrics at the images' own sizes")
    align: Literal["none", "template"] = "none"
    limits: Text = Field("", description="of the alignment: degrees/shift/scale")
    tiles: Text = Field("", description="side of a tile, or auto; empty: the view is seen whole")
    overlap: Text = Field("", description="of tiles, in pixels; empty: an eighth of their side")
    tiling: Literal["shared", "position"] = Field("shared", description="one detector for all tiles, or one each")
    top: Text = Field(
        "", description="share of the tiles' highest scores whose mean is the image's; empty: the maximum"
    )
    budget: Text = Field("", description="of a fit: 90s, 10m or 10cpu-m")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: Text = Field("", description="batches whose mean gradient one step takes")


class ProtocolName(BaseModel):
    """What the fields mean."""

    name: str = Field(description="the protocol's name, as it is stored; empty where a field is wrong")
    errors: dict[str, str] = Field(description="what is wrong, by field")


@router.get("/protocol", response_model=ProtocolName)
def protocol(fields: Annotated[ProtocolFields, Query()]) -> Any:
    """Return the name of the protocol that the fields mean together, or what is wrong with them."""
    found, errors = read(fields)
    return {"name": "" if found is None else str(found), "errors": errors}


def read(fields: ProtocolFields) -> tuple[Protocol | None, dict[str, str]]:
    """Return the protocol, and by field what is wrong; None where something is."""
    errors: dict[str, str] = {}

    def part(field: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except BadConfig as error:
            errors[field] = str(error)
            return None

    values: dict[str, Any] = {"kind": fields.kind, "native": fields.native, "precision": fields.precision}
    size = part("size", lambda: sides(fields.size.strip() or "256")) if fields.kind == "uniform" else None
    if size is not None:  # papers have their own views
        values |= {"size": size[0], "width": size[1], "fit": fields.fit}
        part("size", lambda: check_protocol(Protocol(size=size[0], width=size[1])))
        part("fit", lambda: Protocol(size=size[0], width=size[1], fit=fields.fit))
    if fields.align == "template":
        values["align"] = part("limits", lambda: Limits.parse(text) if (text := fields.limits.strip()) else Limits())
    if fields.tiles.strip():
        values["tiling"] = _tiling(fields, part)
    if fields.budget.strip():
        values["budget"] = part("budget", lambda: Budget.parse("".join(fields.budget.split())))
    if fields.accumulate.strip():
        values["accumulate"] = part("accumulate", lambda: _batches(fields.accumulate.strip()))
    return (None if errors else part("kind", lambda: Protocol(**values))), errors


def fields_of(found: Protocol) -> dict[str, Any]:
    """Return a protocol in parts, as :func:`read` takes them."""
    sizes = f"{found.width}x{found.size}" if found.width else "native" if found.size == NATIVE else str(found.size)
    given: dict[str, Any] = {
        "kind": found.kind, "size": "" if found.kind == "paper" else sizes, "fit": found.fit, "native": found.native,
        "budget": str(found.budget or ""), "precision": found.precision, "accumulate": str(found.accumulate),
    }  # fmt: skip
    if found.align is not None:
        given |= {"align": "template", "limits": str(found.align)}
    if found.tiling is not None:
        auto = found.tiling.side == AUTO
        given |= {
            "tiles": "auto" if auto else str(found.tiling.side),
            "overlap": "" if auto else str(found.tiling.overlap),
        }
        given |= {"tiling": "position" if found.tiling.by_position else "shared"}
        given |= {"top": f"{found.tiling.top:g}" if found.tiling.top else ""}
    return ProtocolFields.model_validate(given).model_dump()


def _tiling(fields: ProtocolFields, part: Callable[[str, Callable[[], Any]], Any]) -> Tiling | None:
    """Read the fields of tiles one after the other, so that each has its own sentence."""
    text = fields.tiles.strip()
    found: Tiling | None = part("tiles", lambda: Tiling.parse(text))
    if found is not None and (overlap := fields.overlap.strip()):
        text += f"/{overlap}"
        found = part("overlap", lambda: Tiling.parse(text))
    if found is not None and fields.tiling == "position":
        text += "/position"
        found = Tiling.parse(text)
    if found is not None and (top := fields.top.strip()):
        found = part("top", lambda: Tiling.parse(f"{text}/top{top}"))
    return found


def _batches(text: str) -> int:
    if (count := whole_number(text)) is None:
        raise BadConfig(f"accumulate is a number of batches, not {text!r}.")
    check_number("accumulate", count, 1, MAX_BATCHES)
    return count
