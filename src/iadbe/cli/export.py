r"""Write a fitted detector as one file that runs without torch.

MODEL is a model's folder, a run's folder, or the beginning of a run's id. The file takes RGB images of any size, as
(N, height, width, 3) of 8-bit values, and computes all the rest: resizing, features, what was learnt, anomaly map,
score, calibrated probability and verdict. After writing, file and torch score the same images: --images, else training
images of the model if its data is found, else drawn patterns. Sixteen of them are kept beside the file with torch's
scores and maps, for `iadbe verify`. The command fails if scores or maps differ by more than one part in ten thousand
(fp16: one in a hundred) of the largest.

    iadbe export runs/padim-toy-cloth-vanilla-s0-0123456789ab --out cloth.onnx
    iadbe verify cloth.onnx --cycle-time 50ms
    iadbe predict cloth.onnx new/parts --out heat

Formats: onnx, which ONNX Runtime and OpenVINO read; openvino (NAME.xml and NAME.bin); torch (a torch.export program,
.pt2); web (a folder with a page in which a browser scores images; its runtime comes from npm, or from --runtime DIR).
--precision fp16 halves the weights' size; they are computed in float32. Running the file takes no torch; from Python:
`iadbe.runtime.inspector.Inspector`.

--precision int8 quantises the backbone with the images above, which must be good ones; distances stay in float32.
The command prints what that costs against fp32: correlation of scores, other verdicts, size, time, and the AUROC with
test images (--good, --bad). Exit code 3, and no file: the correlation is further below 1, the share of other verdicts
is larger, or the AUROC falls by more than --tolerance; --force keeps the file. `iadbe verify` compares such a file with
what it computed here, not with torch.

The file's card lists what went into it, with licences. Where one forbids commercial use, --allow noncommercial says
that the file is for research alone. --sign KEY.pem writes a signature, --sbom a bill of materials beside the file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError
from iadbe.cli.legacy import model_first
from iadbe.cli.options import STORE, add_trust, parse
from iadbe.exporting import ENDINGS, PRECISIONS

WEB = "web"


def run(arguments: Sequence[str]) -> int:
    """Export; exit code 1 if the file does not agree with torch."""
    request = parse("export", __doc__ or "", model_first(arguments), _add, form="MODEL [options]")
    values = request.values
    if not values["model_folder"]:
        raise UsageError("which model? Give the folder that `iadbe train` made, or its run's id.")
    if values["to"] not in (*ENDINGS, WEB):
        raise UsageError(f"--to is one of {', '.join((*ENDINGS, WEB))}, not {values['to']!r}.")
    if values["to"] == WEB and values["precision"] != "fp32":
        raise UsageError("--precision is for files: a page takes fp32.")
    if values["runtime"] and values["to"] != WEB:
        raise UsageError("--runtime is the folder of a page's runtime: it belongs to --to web.")
    if values["precision"] not in PRECISIONS:
        raise UsageError(f"--precision is one of {', '.join(PRECISIONS)}, not {values['precision']!r}.")
    from iadbe import api
    from iadbe.cli.model_path import model_folder
    from iadbe.exporting.precision_cost import TooCostly

    for note in request.notes:
        print(f"note: {note}", file=sys.stderr)
    folder = model_folder(values["model_folder"], values["store"])
    out = system.user_path(values["out"]) if values["out"] else None
    key, runtime = (system.user_path(values[name]) if values[name] else None for name in ("sign", "runtime"))
    given = {name: values[name] or () for name in ("images", "good", "bad")}
    try:
        found = api.export(
            folder, out, to=values["to"], precision=values["precision"], sbom=values["sbom"], runtime=runtime,
            allow=[word for word in values["allow"].split(",") if word], sign=key, **given,
            tolerance=values["tolerance"], force=values["force"],
        )  # fmt: skip
    except TooCostly as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    print(f"{found.file}: {found.size}")
    if found.cost is not None:
        print("\n".join(found.cost.lines()))
    if found.parity is not None:
        print(f"{found.parity} ({found.source})")
        if not found.parity.holds:
            why = "the file does not compute what torch computes"
            if values["precision"] != "fp32":
                why = f"{found.detector} does not bear {values['precision']}: export it as fp32"
            print(f"error: {why}. The file is kept; do not use it.", file=sys.stderr)
            return 1
    if values["to"] == WEB:
        print(f"\nNext: python -m http.server -d {found.file.parent}, and open http://localhost:8000")
    elif values["to"] != "torch":
        print(f"\nNext: iadbe verify {found.file}\n      iadbe predict {found.file} IMAGES")
    return 0


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model_folder", type=str, nargs="?", default="", metavar="MODEL", help="folder, or run id")
    parser.add_argument("--to", type=str, default="onnx", metavar="FORMAT", help="onnx, openvino, torch or web")
    parser.add_argument("--precision", type=str, default="fp32", metavar="P", help="fp32, fp16 or int8")
    parser.add_argument("--out", type=str, default="", metavar="FILE", help="default: the detector's name, here")
    parser.add_argument("--images", type=str, nargs="*", metavar="INPUT", help="images that file and torch both score")
    parser.add_argument("--good", type=str, nargs="*", metavar="INPUT", help="of int8: good test images")
    parser.add_argument("--bad", type=str, nargs="*", metavar="INPUT", help="of int8: defective test images")
    parser.add_argument("--tolerance", type=float, default=0.01, metavar="T", help="of int8: what it may cost")
    parser.add_argument("--force", action="store_true", help="keep an int8 file that costs more than --tolerance")
    parser.add_argument("--allow", type=str, default="", metavar="USE", help="noncommercial, or own: see above")
    parser.add_argument("--sign", type=str, default="", metavar="KEY", help="private Ed25519 key, a PEM file")
    parser.add_argument("--sbom", action="store_true", help="write a bill of materials (CycloneDX) beside the file")
    parser.add_argument(
        "--runtime", type=str, default="", metavar="DIR", help="of a page: a folder with onnxruntime-web"
    )
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
