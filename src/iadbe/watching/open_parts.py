"""Parts whose images are still coming: which image belongs to which, and when a part is complete."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iadbe.errors import BadConfig, BadData
from iadbe.runtime.parts import Combination, Part, ViewScore, named_by, part_of
from iadbe.runtime.scored_image import ScoredImage
from iadbe.runtime.verdict import REJECT, UNKNOWN

TIMEOUT_SECONDS = 10.0
MAX_IMAGES = 1000  # of one part: then it is complete, so that a rule that matches everything fills no memory


@dataclass(frozen=True, slots=True)
class PartRule:
    """Which images are one part, and when it is complete."""

    part: str  # rule of iadbe.files.groups on the file's name below the watched folder
    view: str = ""  # rule by which views are named, where a model combines them
    images: int = 0  # images of a part; 0: not known
    seconds: float = TIMEOUT_SECONDS  # without a new image, after which a part is complete
    combination: Combination | None = None  # of the model; None: the maximum
    threshold: float | None = None  # of single images, which is shown with the maximum

    def __post_init__(self) -> None:
        """Raise :class:`BadConfig` for a rule that can never be followed."""
        if self.images < 0 or not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise BadConfig("a part has at least one image, and is waited for for more than 0 seconds.")
        for rule, option in ((self.part, "part"), (self.view, "view")):
            table = rule.rpartition(":")[0]
            if table.lower().endswith(".csv") and not Path(table).is_file():
                raise BadConfig(f"--{option}: there is no file {table}.")
            try:
                named_by([Path("image.png")], rule, option)
            except BadData:  # the rule does not cover this name, which is only a try
                continue

    def name_of(self, name: str) -> tuple[str, str]:
        """Return the part of a file, and why it is one by itself where the rule does not cover its name."""
        try:
            found = named_by([Path(name)], self.part, "part")[0]
        except BadData as error:
            return name, f"judged alone: {error}"
        return found or name, ""

    def view_of(self, name: str) -> str:
        """Return the view of a file; empty where the rule does not cover its name."""
        try:
            return named_by([Path(name)], self.view, "view")[0]
        except BadData:
            return ""


@dataclass(slots=True)
class Member:
    """An image file of an open part, with its pages."""

    number: int  # in the journal
    name: str  # below the watched folder
    views: list[ViewScore]
    rows: list[dict[str, Any]]  # of its pages, as JSON lines have them
    is_placed: bool = False  # its file has been moved already

    def body(self) -> str:
        """Return what the journal keeps."""
        views = [[v.path.as_posix(), _number(v.score), v.scaled, v.verdict, v.error, v.view] for v in self.views]
        return json.dumps([self.name, self.is_placed, views, self.rows])


@dataclass(slots=True)
class OpenPart:
    """The images of a part that have come."""

    members: list[Member] = field(default_factory=list)
    since: float = 0.0  # of the last image, on the clock
    notes: set[str] = field(default_factory=set)

    @property
    def views(self) -> list[ViewScore]:
        """All images and pages."""
        return [view for member in self.members for view in member.views]


class OpenParts:
    """The open parts of a watcher."""

    def __init__(self, rule: PartRule, clock: Callable[[], float] = time.monotonic) -> None:
        self.rule = rule
        self._clock = clock
        self._parts: dict[str, OpenPart] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def load(self, kept: Sequence[tuple[int, str, str]]) -> None:
        """Take what the journal has kept of an earlier call; these parts are waited for anew."""
        for number, part, body in kept:
            name, is_placed, views, rows = json.loads(body)
            found = [ViewScore(Path(v[0]), math.nan if v[1] is None else v[1], *v[2:]) for v in views]
            self.add(part, Member(number, name, found, rows, is_placed))

    def member_of(self, name: str, results: Sequence[ScoredImage], rows: list[dict[str, Any]]) -> Member:
        """Return a file's results as a member of a part."""
        view = self.rule.view_of(name)
        views = [ViewScore(r.path, r.score, r.scaled, r.verdict, r.error, view) for r in results]
        return Member(0, name, views, rows)

    def add(self, part: str, member: Member, note: str = "") -> None:
        """Add an image to its part."""
        found = self._parts.setdefault(part, OpenPart())
        found.members.append(member)
        found.since = self._clock()
        found.notes |= {note} - {""}

    def complete(self, all_of_them: bool = False) -> list[str]:
        """Return the names of the parts that are complete; with ``all_of_them``, because no image will come."""
        now, most = self._clock(), min(self.rule.images or MAX_IMAGES, MAX_IMAGES)
        return [
            name
            for name, part in self._parts.items()
            if all_of_them or part.notes or len(part.views) >= most or now - part.since >= self.rule.seconds
        ]

    def take(self, name: str) -> tuple[Part, OpenPart]:
        """Remove a part, and return the verdict on it."""
        open_part = self._parts.pop(name)
        rule, views = self.rule, tuple(open_part.views)
        return part_of(name, views, rule.threshold, rule.combination), open_part


def verdict_on(part: Part, notes: set[str], expected: int) -> tuple[str, str]:
    """Return verdict and error of a part. One of which images are missing is rejected or has no verdict."""
    errors = [part.error, *sorted(notes)]
    lacking = expected and not notes and len(part.images) < expected
    if lacking:
        errors.append(f"{len(part.images)} of {expected} images have come")
    verdict = part.verdict if part.verdict == REJECT or not lacking else UNKNOWN
    return verdict, "; ".join(filter(None, errors))


def row_of_part(part: Mapping[str, Any], verdict: str, error: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the columns of a part with the verdict that it gets, and the rows of its images."""
    defective = verdict == REJECT if verdict else None
    return {**part, "verdict": verdict or None, "defective": defective, "error": error or None, "images": rows}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
