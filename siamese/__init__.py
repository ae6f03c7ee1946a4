"""Siamese networks: how alike are two images?"""

__version__ = "0.1.0"

from siamese.checkpoint import load
from siamese.loss import contrastive_loss
from siamese.model import Comparison, Model
from siamese.network import SiameseNetwork, distance

__all__ = ["Comparison", "Model", "SiameseNetwork", "contrastive_loss", "distance", "load"]
