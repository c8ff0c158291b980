"""A bill of materials of an exported file: CycloneDX 1.6 in JSON, by the package ``cyclonedx-python-lib``.

It names the file with its digest, and what went into it with licences and digests: data, weights, what was learnt, and
the packages that wrote it. Specification: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from iadbe import system
from iadbe.errors import Missing
from iadbe.exporting.origins import OWN, UNKNOWN, Origin
from iadbe.runtime.file_parts import sha256_of

if TYPE_CHECKING:
    from cyclonedx.model.component import Component, ComponentType

ENDING = ".cdx.json"
WRITERS = ("iadbe", "torch", "timm", "onnx", "onnxscript", "openvino")  # packages that write files


def write(files: Sequence[Path], origins: Sequence[Origin], name: str) -> Path:
    """Write the bill of materials beside an exported file, which may be of several parts. Raises :class:`Missing`."""
    if find_spec("cyclonedx") is None:
        raise Missing("a bill of materials needs more packages. Install them with: pip install 'iadbe[sign]'")
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    bom = Bom()
    main = _component(ComponentType.MACHINE_LEARNING_MODEL, name)
    bom.metadata.component = main
    parts = [_component(ComponentType.FILE, file.name, digest=sha256_of(file)) for file in files]
    parts += [_of_origin(origin) for origin in origins]
    parts += [_component(ComponentType.LIBRARY, package, version(package)) for package in WRITERS if _is_here(package)]
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(main, parts)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    target = files[0].with_name(files[0].name + ENDING)
    with system.replacing(target) as file:
        file.write_text(text + "\n", encoding="utf-8")
    return target


def _of_origin(origin: Origin) -> Component:
    from cyclonedx.model.component import ComponentType

    kind = {"training data": ComponentType.DATA, "code": ComponentType.LIBRARY}
    licence = "" if origin.licence in (UNKNOWN, OWN) else origin.licence
    found = kind.get(origin.part, ComponentType.MACHINE_LEARNING_MODEL)
    return _component(found, origin.name, digest=origin.digest, licence=licence, description=origin.part)


def _component(
    kind: ComponentType, name: str, number: str = "", *, digest: str = "", licence: str = "", description: str = ""
) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component

    return Component(
        type=kind,
        name=name,
        version=number or None,
        description=description or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else None,
        licenses=[LicenseFactory().make_from_string(licence)] if licence else None,
    )


def _is_here(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
