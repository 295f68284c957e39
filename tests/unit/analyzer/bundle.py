"""A pose landmarker bundle (.task) made of the models inside the mediapipe package, for nothing is downloaded."""

import zipfile
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]  # it has no types
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as schema
from posture_analyzer.estimator import mp

MODULES = Path(mp.__file__).parent / "modules"
ZIP_HEADER, ZIP_ALIGNMENT, BUFFER_ALIGNMENT = 30, 64, 16


class _AligningBuilder(flatbuffers.Builder):  # type: ignore[misc]  # nor has its class
    """TensorFlow Lite reads its weights in place, which needs them aligned."""

    def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802  (the base class names it)
        return super().StartVector(size, count, BUFFER_ALIGNMENT if size == 1 else alignment)


def write_bundle(path: Path) -> None:
    """Write a bundle of the detector and the full model."""
    detector = _with_normalization(MODULES / "pose_detection" / "pose_detection.tflite", mean=127.5, std=127.5)
    landmarks = _with_normalization(MODULES / "pose_landmark" / "pose_landmark_full.tflite", mean=0, std=255)
    with zipfile.ZipFile(path, "w") as bundle:
        for name, model in (("pose_detector.tflite", detector), ("pose_landmarks_detector.tflite", landmarks)):
            assert bundle.fp is not None
            entry = zipfile.ZipInfo(name)
            end = bundle.fp.tell() + ZIP_HEADER + len(name)
            entry.extra = _padding(-end % ZIP_ALIGNMENT)
            bundle.writestr(entry, model)


def _padding(size: int) -> bytes:
    """An extra field of a zip entry, which needs four bytes for its own header."""
    size += ZIP_ALIGNMENT if size < 4 else 0
    return b"\0\0" + (size - 4).to_bytes(2, "little") + bytes(size - 4)


def _with_normalization(path: Path, *, mean: float, std: float) -> bytes:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(_normalization(mean=mean, std=std))
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return _pack(model, b"TFL3")


def _normalization(*, mean: float, std: float) -> bytes:
    normalization = metadata.NormalizationOptionsT()
    normalization.mean, normalization.std = [mean], [std]
    unit = metadata.ProcessUnitT()
    unit.optionsType, unit.options = metadata.ProcessUnitOptions.NormalizationOptions, normalization
    image = metadata.ImagePropertiesT()
    image.colorSpace = metadata.ColorSpaceType.RGB
    content = metadata.ContentT()
    content.contentPropertiesType, content.contentProperties = metadata.ContentProperties.ImageProperties, image
    tensor = metadata.TensorMetadataT()
    tensor.processUnits, tensor.content = [unit], content
    graph = metadata.SubGraphMetadataT()
    graph.inputTensorMetadata = [tensor]
    model = metadata.ModelMetadataT()
    model.subgraphMetadata = [graph]
    return _pack(model, b"M001")


def _pack(table: Any, identifier: bytes) -> bytes:
    builder = _AligningBuilder(0)
    builder.Finish(table.Pack(builder), identifier)
    return bytes(builder.Output())
