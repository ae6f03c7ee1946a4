"""A face network in an ONNX file, run by onnxruntime."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from siamese.record import Checked

if TYPE_CHECKING:
    from types import ModuleType

    from onnxruntime import InferenceSession

INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
IMAGES_AT_ONCE = 32  # if the file takes any number
RGB = tuple[float, float, float]


@dataclass(frozen=True)
class OnnxInput(Checked):
    """How crops become the input of an ONNX file, and which of its outputs is the embedding.

    Attributes:
        sha256: of the file.
        size: height and width of the input in pixels.
        channels: the order of the color channels.
        mean: subtracted from the red, green and blue channel, which are in [0, 255].
        std: then they are divided by it.
        output: name of the output.
        batch: number of images that the file takes at once; None for any number.

    Raises:
        ValueError: if a value is out of range.
    """

    sha256: str
    size: int
    channels: Literal["RGB", "BGR"]
    mean: RGB
    std: RGB
    output: str
    batch: int | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.size <= 1024 and (self.batch is None or 1 <= self.batch <= 256)):
            raise ValueError(f"the size must be in 1 to 1024, and the batch in 1 to 256, got {self}")
        if not (np.isfinite([*self.mean, *self.std]).all() and min(self.std) > 0):
            raise ValueError(f"mean and std must be finite, and std above 0, got {self}")


class Signature(NamedTuple):
    """The image input of an ONNX file. `size` and `batch` are None if the file does not fix them."""

    name: str
    dtype: type
    channels_last: bool  # (B, H, W, 3), else (B, 3, H, W)
    size: int | None
    batch: int | None


class OnnxBackbone(nn.Module):
    """Runs an ONNX file on the CPU, without gradients. It can be used after `open`."""

    mean: Tensor
    std: Tensor

    def __init__(self, embedding_dim: int, settings: OnnxInput):
        super().__init__()
        self.embedding_dim, self.settings = embedding_dim, settings
        self.input_shape = (3, settings.size, settings.size)
        for name in ("mean", "std"):  # config.json holds them
            value = torch.tensor(getattr(settings, name), dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self.file: Path | None = None
        self._sessions: dict[int, InferenceSession] = {}  # by process: the threads of a session do not survive a fork

    def open(self, file: Path) -> OnnxBackbone:
        """Open the file, and return self. Raises a ValueError if it is another one or cannot be run."""
        if hashlib.sha256(file.read_bytes()).hexdigest() != self.settings.sha256:
            raise ValueError(f"{file} is damaged or does not belong to config.json")
        self.file = file
        self._signature = read_signature(self._session())
        try:
            z = self(torch.zeros(1, *self.input_shape))
        except Exception as error:  # onnxruntime's have no common base class
            raise ValueError(f"{file} does not fit config.json: {str(error).splitlines()[0]}") from error
        if not z.isfinite().all():
            raise ValueError(f"{file} has an output that is infinite or not a number; use another file")
        return self

    def with_input(self, **changes: Any) -> OnnxBackbone:
        """Return a backbone with other settings of the same open file."""
        other = OnnxBackbone(self.embedding_dim, replace(self.settings, **changes))
        other.file, other._sessions, other._signature = self.file, self._sessions, self._signature
        return other

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, 3, H, W) RGB images in [0, 1] into (B, D) float32 outputs."""
        pixels = (255 * x - self.mean) / self.std
        if self.settings.channels == "BGR":
            pixels = pixels.flip(1)
        if self._signature.channels_last:
            pixels = pixels.permute(0, 2, 3, 1)
        if self._signature.dtype is np.uint8:
            pixels = pixels.round()
        values = np.ascontiguousarray(pixels.cpu().numpy().astype(self._signature.dtype))
        step = self.settings.batch or IMAGES_AT_ONCE
        rows = [np.empty((0, self.embedding_dim), np.float32)]
        rows += [self._run(values[start : start + step]) for start in range(0, len(values), step)]
        return torch.from_numpy(np.concatenate(rows)).to(x)

    def _run(self, values: np.ndarray) -> np.ndarray:
        """Run one batch, which is filled by repeating images if the file takes only full ones."""
        count = self.settings.batch or len(values)
        full = np.resize(values, (count, *values.shape[1:]))
        # onnxruntime's own setting leaves out the calling thread. Denormal numbers can make it eight times as slow.
        torch.set_flush_denormal(True)
        try:
            (z,) = self._session().run([self.settings.output], {self._signature.name: full})
        finally:
            torch.set_flush_denormal(False)
        return np.asarray(z, dtype=np.float32).reshape(count, self.embedding_dim)[: len(values)]

    def _session(self) -> InferenceSession:
        assert self.file, "open was called"
        if os.getpid() not in self._sessions:
            self._sessions[os.getpid()] = open_session(self.file)
        return self._sessions[os.getpid()]


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime without its telemetry, which sends names and hashes of networks to Microsoft from 1.29 on."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it is read when the module is imported
    import onnxruntime

    return onnxruntime


def open_session(file: Path) -> InferenceSession:
    """Open an ONNX file that needs no other files and no operators of others.

    Raises:
        ImportError: if onnxruntime is not installed.
        ValueError: if onnxruntime cannot run the file.
    """
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        hint = "pip install 'siamese-faces[onnx]'"
        raise ImportError(
            f"this network needs onnxruntime, which is not installed: {hint}", name="onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Search runs it in several threads, which would be in each other's way.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # No folder, so that a file from the Hub cannot read others.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file))
    try:
        return onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's have no common base class
        text = str(error)
        if "xternal data" in text:
            text = (
                "its weights are in another file; save it as a single file, for example with onnx.save(onnx.load(...))"
            )
        elif "is not a registered function/op" in text or "custom op" in text.lower():
            text = f"it needs an operator that is not part of ONNX; export it again without ({text.splitlines()[0]})"
        raise ValueError(f"onnxruntime cannot run {file}: {text.splitlines()[0]}") from error


def read_signature(session: InferenceSession) -> Signature:
    """Return the only input of a file. Raises a ValueError if it is not a batch of square color images."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise ValueError(f"the ONNX file has {len(inputs)} inputs ({names}); export it with one, a batch of images")
    ((name, kind, shape),) = [(each.name, each.type, each.shape) for each in inputs]
    sides = [side if isinstance(side, int) and side > 0 else None for side in shape]
    if len(sides) != 4 or 3 not in (sides[1], sides[3]):
        raise ValueError(
            f"the ONNX file's input has the shape {shape}; export it with three color channels, as (B, 3, H, W) or "
            "(B, H, W, 3)"
        )
    if kind not in INPUT_TYPES:
        raise ValueError(f"the ONNX file's input is a {kind}; export it with one of: {', '.join(INPUT_TYPES)}")
    channels_last = sides[1] != 3
    height, width = (sides[1], sides[2]) if channels_last else (sides[2], sides[3])
    if height and width and height != width:
        raise ValueError(f"the ONNX file takes crops of {width} × {height} pixels; export it for square crops")
    return Signature(name, INPUT_TYPES[kind], channels_last, height or width, sides[0])
