"""Siamese networks: how alike are two images?"""

__version__ = "0.1.0"

from siamese.compare import Comparison, Model
from siamese.loss import contrastive_loss
from siamese.network import SiameseNetwork, distance
from siamese.store import load

__all__ = ["Comparison", "Model", "SiameseNetwork", "contrastive_loss", "distance", "load"]
