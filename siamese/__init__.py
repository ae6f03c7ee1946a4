"""Siamese networks: how alike are two images?"""

__version__ = "0.1.0"

from siamese.compare import Comparison, Model, load
from siamese.loss import contrastive_loss
from siamese.network import SiameseNetwork, distance

__all__ = ["Comparison", "Model", "SiameseNetwork", "contrastive_loss", "distance", "load"]
