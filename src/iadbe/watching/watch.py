"""Judge images as they come: `iadbe watch` from Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from iadbe.errors import BadConfig
from iadbe.files.video import is_video
from iadbe.watching.csv_file import CsvFile
from iadbe.watching.delivery import Sink
from iadbe.watching.hot_folder import SETTLE_SECONDS, HotFolder
from iadbe.watching.mqtt import Mqtt
from iadbe.watching.open_parts import TIMEOUT_SECONDS, PartRule
from iadbe.watching.scoring_model import load_model
from iadbe.watching.source import Source
from iadbe.watching.stream import Camera, VideoFrames, is_camera
from iadbe.watching.watcher import Record, Status, Watcher
from iadbe.watching.webhook import Webhook


def watch(
    source: str | Path, model: str | Path, out: str | Path, *, move: bool = False, draw: bool = False,
    once: bool = False, threshold: float | None = None, webhook: str = "", webhook_secret: str = "", mqtt: str = "",
    settle: float = SETTLE_SECONDS, device: str = "auto", engine: str = "torch",
    listener: Callable[[Record], None] | None = None, csv: str | Path = "", part: str = "", view: str = "",
    part_images: int = 0, part_timeout: float = TIMEOUT_SECONDS,
) -> Status:  # fmt: skip
    """Judge images as they come, each once, until Ctrl-C.

    Args:
        source: a folder into which images are written, a video file, ``rtsp://`` address or device of a camera
        model: a model's folder, or an exported file
        out: folder of the log ``verdicts.jsonl``, of the journal and, with ``move``, of the files by verdict
        move: move each file to the folder of its verdict; frames are written there
        draw: write heat maps, overlays and masks
        once: end when all that is there has been judged and sent
        threshold: score from which a part is rejected; None: the model's own
        webhook: address that each verdict is posted to
        webhook_secret: by which posts are signed (HMAC-SHA256)
        mqtt: address of a broker with a topic, ``mqtt://host/topic``
        settle: seconds without a change after which a file is complete
        device: of a model's folder
        engine: torch, onnxruntime or openvino
        listener: is given every new verdict, as its JSON line has it
        csv: file that each verdict is appended to
        part: which images are one part, with one verdict: a regular expression on their names below the source, or
            ``FILE.csv:COLUMN``; the verdict is that of the worst image, or by the model's combination of views
        view: the same for the views of a part, which a combination needs
        part_images: images of a part, with which it is complete; 0: not known
        part_timeout: seconds without a new image after which a part is complete

    Raises :class:`BadConfig` for what cannot be watched, and where another process writes to ``out``.
    """
    watcher = watcher_of(
        source, model, out, move=move, draw=draw, threshold=threshold,
        sinks=sinks_of(webhook, webhook_secret, mqtt, csv), settle=settle, device=device, engine=engine,
        listener=listener, part=part, view=view, part_images=part_images, part_timeout=part_timeout,
    )  # fmt: skip
    return watcher.run(once)


def watcher_of(
    source: str | Path, model: str | Path, out: str | Path, *, move: bool, draw: bool, threshold: float | None,
    sinks: list[Sink], settle: float, device: str, engine: str, listener: Callable[[Record], None] | None,
    part: str, view: str, part_images: int, part_timeout: float,
) -> Watcher:  # fmt: skip
    """Return the watcher that :func:`watch` runs."""
    out = Path(out)
    found = source_of(str(source), out, settle)
    scoring = load_model(Path(model), engine, device, threshold, source="watch")
    own = scoring.calibration
    if move and own.threshold is None and threshold is None:
        raise BadConfig("files are moved by verdict, and the model has no threshold: calibrate it, or give one.")
    parts = None
    if part:
        if move and not isinstance(found, HotFolder):
            raise BadConfig(
                "the files of a part are moved when it is complete, and frames are no files: without --move."
            )
        combination = own.combination if threshold is None else None
        limit = own.threshold if threshold is None else threshold
        parts = PartRule(part, view, part_images, part_timeout, combination, limit)
    elif view or part_images:
        raise BadConfig("--view and --part-images belong to --part, which says which images are one part.")
    draws = None
    if draw:
        from iadbe.report import map_images

        draws = partial(map_images.write, limit=own.pixel_threshold)
    return Watcher(
        found, lambda image: next(scoring.score([image])), out, move=move, sinks=sinks, draw=draws,
        pixel_threshold=own.pixel_threshold, listener=listener, note=scoring.note, parts=parts, monitor=scoring.monitor,
    )  # fmt: skip


def source_of(text: str, out: Path, settle: float = SETTLE_SECONDS) -> Source:
    """Return what a path or an address means. Raises :class:`BadConfig`."""
    if is_camera(text):
        return Camera(text)
    path = Path(text)
    if path.is_file():
        if not is_video(path):
            raise BadConfig(f"{text} is a file, and no video. `iadbe predict` scores single images.")
        return VideoFrames(path)
    if out.absolute() == path.absolute():
        raise BadConfig("verdicts are written to another folder than the watched one, which may lie in it.")
    return HotFolder(path, without=[out], settle=settle)


def sinks_of(webhook: str = "", webhook_secret: str = "", mqtt: str = "", csv: str | Path = "") -> list[Sink]:
    """Return where verdicts are sent. Raises :class:`BadConfig`, :class:`iadbe.errors.Missing`."""
    found: list[Sink] = [Webhook(webhook, webhook_secret)] if webhook else []
    found += [Mqtt(mqtt)] if mqtt else []
    return [*found, CsvFile(Path(csv))] if csv else found
