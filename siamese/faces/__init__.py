"""Face detection, alignment and image quality."""

from siamese.faces.face import Face, crop, detect
from siamese.faces.quality import quality_warnings

__all__ = ["Face", "crop", "detect", "quality_warnings"]
