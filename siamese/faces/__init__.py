"""Face detection, alignment and image quality."""

from siamese.faces.alignment import crop
from siamese.faces.face import Face, detect
from siamese.faces.quality import quality_warnings

__all__ = ["Face", "crop", "detect", "quality_warnings"]
