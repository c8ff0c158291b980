r"""Choose a model's threshold on images that it was not trained on, and state its error rates.

MODEL is a model's folder, a run's folder, or the beginning of a run's id. --good and --bad take files, folders
(searched through) or patterns. Good images alone are enough:

    iadbe calibrate runs/padim-toy-cloth-vanilla-s0-0123456789ab --good new/good/parts --overkill 0.01

--overkill (or --reject, the same) guarantees how many good parts are rejected, for parts made and photographed like
these, and says how many images that takes; with --bad it also measures what escapes. --escape takes the highest
threshold that at most this share of the bad images escapes, --cost the threshold of the least cost; both measure the
overkill. Training images score too low: they are recognised by their pixels and left out. Several images of one part
or lot are not independent: with --group 'part_\d+' they count as one, with the highest of their scores.

--look adds a second, lower threshold, for three verdicts: good, look (at it), reject. At most that share of good parts
is not called good; what is rejected counts, too. The guarantees hold on average over calibrations; with --confidence
0.95 they hold with 95 % confidence, which takes more images: 59 for 5 %, 299 for 1 %.

    iadbe calibrate runs/padim-toy-cloth-vanilla-s0-0123456789ab --good new/good/parts --look 0.05 --reject 0.005

Verdicts can follow from regions of the anomaly map instead of the image's score: with --min-area only regions of so
many pixels count (those from the threshold for pixels on, pixels of the image that touch), with --max-count so many of
them are tolerated, and --zones names areas of the image, in which --zone-threshold may fix another threshold (of the
raw map). The threshold for pixels is then chosen so that the guarantees hold for these verdicts.

    iadbe calibrate runs/padim-toy-cloth-vanilla-s0-0123456789ab --good new/good/parts --min-area 30

--part is --group for parts of which there are several images: `iadbe predict --part` gives one verdict on each. With
--combine fisher their scores are combined by Fisher's method, each compared with good ones of its --view. Half of the
good parts is taken for these, the other half for the threshold. That finds what is weak in several views; what is in
one view alone is found more surely by the maximum.

    iadbe calibrate runs/padim-toy-cloth-vanilla-s0-0123456789ab --good new/good --part 'part_\d+' --combine fisher \
        --view 'cam\d'

The threshold for pixels, which draws the masks of `iadbe predict --out`, is such that a good part shows a pixel above
it as rarely as one is rejected. The displayed scale from 0 to 1 is fixed here too, with 0.5 at the threshold. All of
it is kept in the model's folder, `iadbe predict` uses it from then on, and what was there before is replaced.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import jsonargparse

from iadbe.cli import UsageError
from iadbe.cli.legacy import model_first
from iadbe.cli.options import STORE, add_trust, parse

if TYPE_CHECKING:
    from iadbe.api import CalibrationResult


def run(arguments: Sequence[str]) -> int:
    """Calibrate and print the guaranteed error rates."""
    form = "MODEL --good IMAGES… [options]"
    request = parse("calibrate", __doc__ or "", model_first(arguments), _add, form=form)
    values = request.values
    if not values["model_folder"]:
        raise UsageError("which model? Give the folder that `iadbe train` made, or its run's id.")
    if not values["good"]:
        raise UsageError("which good images? Give files, folders or patterns with --good, none that it was trained on.")
    from iadbe import api
    from iadbe.cli.model_path import model_folder

    for note in request.notes:
        print(f"note: {note}", file=sys.stderr)
    if None not in (values["overkill"], values["reject"]):
        raise UsageError("--overkill and --reject are the same share: give one of them.")
    criteria = {name: values[name] for name in ("escape", "cost", "defects", "look", "confidence")}
    criteria["overkill"] = values["reject"] if values["overkill"] is None else values["overkill"]
    folder = model_folder(values["model_folder"], values["store"])
    how = {
        name: values[name] for name in ("device", "group", "part", "view", "combine", "min_area", "max_count", "zones")
    }
    thresholds = _thresholds(values["zone_threshold"] or ())
    found = api.calibrate(folder, values["good"], values["bad"] or (), zone_thresholds=thresholds, **how, **criteria)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    if values["json"]:
        card = {"folder": str(found.folder), **asdict(found.calibration), "notes": list(found.notes)}
        print(json.dumps(card, indent=1))
    else:
        print("\n".join(_lines(found)))
    return 0


def _thresholds(given: Sequence[str]) -> dict[str, float]:
    """Return the thresholds of zones from NAME=X."""
    found = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--zone-threshold takes NAME=X with a number X, such as edge=0.4, not {text!r}.")
    return found


def _lines(found: CalibrationResult) -> list[str]:
    from iadbe.cli.display import short

    it = found.calibration
    pixel = "no threshold for pixels: the detector does not say where defects are"
    if it.pixel_threshold is not None:
        pixel = f"threshold for pixels {it.pixel_threshold:.4g}: a good part shows one as rarely as it is rejected"
    lines = [*it.thresholds(), pixel, it.scale()]
    if found.highest:
        lines += ["highest of the good images (is one of them defective? then the threshold is too high):"]
        lines += [f"{f.score:12.5g}  {short(f.path)}" for f in found.highest]
    return [*lines, f"\nkept in {short(found.folder)}; `iadbe predict` uses it from now on"]


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model_folder", type=str, nargs="?", default="", metavar="MODEL", help="folder, or run id")
    parser.add_argument("--good", type=str, nargs="+", metavar="IMAGES", help="good ones, not used in training")
    parser.add_argument("--bad", type=str, nargs="+", metavar="IMAGES", help="defective ones")
    parser.add_argument(
        "--group", type=str, default="", metavar="RULE",
        help="images that count as one: a regular expression on their paths, or FILE.csv:COLUMN",
    )  # fmt: skip
    parser.add_argument("--part", type=str, default="", metavar="RULE", help="images of one part: the same as --group")
    parser.add_argument(
        "--combine", type=str, default="maximum", metavar="HOW", help="images of a part: maximum, fisher"
    )
    parser.add_argument("--view", type=str, default="", metavar="RULE", help="with --combine fisher: views of a part")
    group = parser.add_argument_group("how to choose")
    group.add_argument(
        "--overkill", type=float, metavar="X", help="share of good parts rejected at most (default: 0.01)"
    )
    group.add_argument("--reject", type=float, metavar="X", help="the same as --overkill, for use beside --look")
    group.add_argument("--look", type=float, metavar="X", help="share of good parts that are not called good at most")
    group.add_argument(
        "--confidence", type=float, metavar="X", help="of these guarantees, such as 0.95 (default: on average)"
    )
    group.add_argument("--escape", type=float, metavar="X", help="share of the bad images that escapes at most")
    group.add_argument("--cost", type=float, metavar="X", help="of an escaped defect, in rejected good parts")
    group.add_argument("--defects", type=float, metavar="X", help="with --cost: share of defective parts in production")
    group = parser.add_argument_group("rules for regions")
    group.add_argument("--min-area", type=int, default=0, metavar="N", help="pixels from which a region counts")
    group.add_argument("--max-count", type=int, default=0, metavar="N", help="regions that are tolerated")
    group.add_argument(
        "--zones", type=str, default="", metavar="FILE", help="named areas: a mask, LabelMe, COCO, CVAT or JSON"
    )
    group.add_argument(
        "--zone-threshold", type=str, nargs="+", metavar="NAME=X", help="map value from which pixels of a zone count"
    )
    group = parser.add_argument_group("how to run")
    group.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    group.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
    group.add_argument("--json", action="store_true", help="print JSON")
