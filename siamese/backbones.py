"""The layers of each backbone: an image in, an embedding out."""

import torch
from torch import Tensor, nn


class TutorialBackbone(nn.Sequential):
    """The convolutional network of the DataHacker tutorial; 38 million multiply-adds per image."""

    input_shape = (1, 100, 100)

    def __init__(self, embedding_dim: int):
        # fmt: off
        super().__init__(                                                              # (B,   1, 100, 100)
            nn.Conv2d(1, 96, kernel_size=11, stride=4), nn.ReLU(), nn.MaxPool2d(3, 2), # (B,  96,  11,  11)
            nn.Conv2d(96, 256, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2, 2),          # (B, 256,   3,   3)
            nn.Conv2d(256, 384, kernel_size=3), nn.ReLU(), nn.Flatten(),               # (B, 384)
            nn.Linear(384, 1024), nn.ReLU(),
            nn.Linear(1024, 256), nn.ReLU(),
            nn.Linear(256, embedding_dim),
        )
        # fmt: on


class InvertedResidual(nn.Module):
    """A block of MobileNetV2 (Sandler et al., CVPR 2018): expand, filter each channel, project linearly.

    The input is added to the output if they have the same shape.
    """

    def __init__(self, inputs: int, expansion: int, outputs: int, stride: int):
        super().__init__()
        width = expansion * inputs
        self.add = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1), nn.PReLU(width),
            *_conv3x3(width, width, stride, groups=width), nn.PReLU(width),
            nn.Conv2d(width, outputs, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.add else self.layers(x)


class StridedConvolution(nn.Conv2d):
    """A 3 × 3 convolution with stride 2, padded with zeros as in TensorFlow: only on the right and at the bottom."""

    def __init__(self, inputs: int, outputs: int, groups: int = 1):
        super().__init__(inputs, outputs, 3, stride=2, padding=2, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)[:, :, 1:, 1:]  # faster than padding the input


def _conv3x3(inputs: int, outputs: int, stride: int, groups: int = 1) -> tuple[nn.Module, ...]:
    if stride == 1:
        return (nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups),)
    return nn.Identity(), StridedConvolution(inputs, outputs, groups)  # the first one keeps the names of the weights


class MobileFaceNet(nn.Sequential):
    """A face network with 52 convolutions and 1.3 million parameters.

    Chen et al., "MobileFaceNets", CCBR 2018 (arXiv 1804.07573), Table 1, with an expansion of 2 in the first block. The
    batch normalisation of the original is folded into the convolutions. So is its input normalisation,
    (255 x - 127.5) / 128, and the border of the first convolution is therefore gray.
    """

    input_shape = (3, 112, 112)

    def __init__(self, embedding_dim: int):
        def stage(inputs: int, expansion: int, outputs: int, count: int, stride: int) -> nn.Module:
            first = InvertedResidual(inputs, expansion, outputs, stride)
            return nn.Sequential(first, *(InvertedResidual(outputs, expansion, outputs, 1) for _ in range(count - 1)))

        # fmt: off
        super().__init__(                                                                     # (B,   3, 112, 112)
            nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), 0.5), nn.Conv2d(3, 64, 3, 2), nn.PReLU(64)),  # (B, 64, 56, 56)
            nn.Sequential(*_conv3x3(64, 64, stride=1, groups=64), nn.PReLU(64), nn.Conv2d(64, 64, 1)),
            stage(64, expansion=2, outputs=64, count=5, stride=2),                            # (B,  64,  28,  28)
            stage(64, expansion=4, outputs=128, count=1, stride=2),                           # (B, 128,  14,  14)
            stage(128, expansion=2, outputs=128, count=6, stride=1),                          # (B, 128,  14,  14)
            stage(128, expansion=4, outputs=128, count=1, stride=2),                          # (B, 128,   7,   7)
            stage(128, expansion=2, outputs=128, count=2, stride=1),                          # (B, 128,   7,   7)
            nn.Sequential(nn.Conv2d(128, 512, 1), nn.PReLU(512), nn.Conv2d(512, 512, 7, groups=512)),
            nn.Sequential(nn.Conv2d(512, 512, 1), nn.Flatten(), nn.Linear(512, embedding_dim)),
        )
        # fmt: on


class LocalContrast(nn.Module):
    """Subtract the local mean and divide by the local standard deviation (Jarrett et al., ICCV 2009).

    This removes brightness and its gradients. The window around each pixel is cut off at the border.
    """

    mean: Tensor  # (side, side): a product with it averages over the window along one axis

    def __init__(self, side: int, window: int):
        super().__init__()
        place = torch.arange(side)
        near = ((place[:, None] - place).abs() <= window // 2).float()
        self.register_buffer("mean", near / near.sum(1, keepdim=True), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.local_mean(x)
        return x / (self.local_mean(x.square()).sqrt() + 0.03)  # the constant keeps flat regions flat

    def local_mean(self, x: Tensor) -> Tensor:
        """Return the mean of (B, C, H, W) images over channels and window, (B, 1, H, W)."""
        return self.mean @ x.mean(1, keepdim=True) @ self.mean.T


class SmallBackbone(nn.Sequential):
    """A small network to train from scratch on few images.

    It has no global pooling, so an embedding depends on where each feature is in the image.
    """

    input_shape = (3, 48, 48)

    def __init__(self, embedding_dim: int):
        def block(inputs: int, outputs: int, kernel_size: int, stride: int) -> tuple[nn.Module, ...]:
            convolution = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False)
            return convolution, nn.BatchNorm2d(outputs), nn.ReLU()

        # fmt: off
        super().__init__(                                                              # (B,  3, 48, 48)
            LocalContrast(48, window=13),
            *block(3, 32, kernel_size=5, stride=2),                                    # (B, 32, 24, 24)
            *block(32, 64, kernel_size=3, stride=1), nn.MaxPool2d(2),                  # (B, 64, 12, 12)
            *block(64, 128, kernel_size=3, stride=1), nn.AvgPool2d(2), nn.Flatten(),   # (B, 128 × 6 × 6)
            nn.Linear(128 * 6 * 6, embedding_dim),
        )
        # fmt: on


BACKBONES: dict[str, type[TutorialBackbone | MobileFaceNet | SmallBackbone]] = {
    "tutorial": TutorialBackbone,
    "mobilefacenet": MobileFaceNet,
    "small": SmallBackbone,
}
