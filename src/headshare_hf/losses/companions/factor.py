"""Factor transfer: the student's maps, translated, are the teacher's, paraphrased."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from .alignment import check_positions
from .arithmetic import attention_maps, pool_alike
from .base import PretrainedCompanionLoss
from .features import FeatureShapes, NeededFeatures


_SLOPE = 0.1


class FactorLoss(PretrainedCompanionLoss):
    """
    Mean absolute difference of the factors of both last maps, each scaled to length 1 (Kim et al., "Paraphrasing Complex
    Network", arXiv 1802.04977, with p = 1).

    The teacher's factor is what the encoder of a paraphraser makes of its map; the paraphraser is an autoencoder which
    has learnt before to reconstruct that map and then stays as it is. The student's factor is what a
    translator makes of its map, which learns with the student. Both have half as many channels as the teacher's map,
    and are compared as the authors' code does, through [`attention_maps`], the larger one averaged down first.

    Args:
        student, teacher: See [`CompanionLoss`].

    Raises:
        ValueError: The last maps have a single position; or `forward` before the paraphraser has been trained.
    """

    student_needs = ("hidden_states",)
    teacher_needs = ("hidden_states",)
    follows_pretraining = True

    def __init__(self, student: FeatureShapes, teacher: FeatureShapes) -> None:
        super().__init__(student, teacher)
        check_positions(type(self).__name__, student.maps[-1:], teacher.maps[-1:])
        own, other = student.maps[-1][0], teacher.maps[-1][0]
        factors = other // 2
        normalised = [_layer(nn.Conv2d, *pair, norm=True) for pair in _steps(own, own, factors, factors)]
        self.translator = nn.Sequential(*normalised)
        encoding = [_layer(nn.Conv2d, *pair) for pair in _steps(other, other, factors, factors)]
        self.encoder = nn.Sequential(*encoding)
        decoding = [_layer(nn.ConvTranspose2d, *pair) for pair in _steps(factors, factors, other, other)]
        self.decoder = nn.Sequential(*decoding)

    def compute(self, student: NeededFeatures, teacher: NeededFeatures, labels: torch.Tensor) -> torch.Tensor:
        """See [`CompanionLoss.compute`]."""
        if not self.pretrained:
            raise ValueError(
                "the paraphraser of FactorLoss has not been trained; minimise `pretraining_loss` and call "
                "`finish_pretraining` first"
            )
        return factor_difference(self.translator(student.hidden_states[-1]), self.encoder(teacher.hidden_states[-1]))

    def compute_pretraining(self, student: NeededFeatures, teacher: NeededFeatures) -> torch.Tensor:
        """See [`PretrainedCompanionLoss.compute_pretraining`]: the paraphraser's mean squared error."""
        teacher_map = teacher.hidden_states[-1]
        return F.mse_loss(self.decoder(self.encoder(teacher_map)), teacher_map)

    def pretraining_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the paraphraser, an encoder and a decoder."""
        yield from self.encoder.parameters()
        yield from self.decoder.parameters()


def factor_difference(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The loss of two factors, `(batch_size, channels, height, width)`; see [`FactorLoss`]."""
    own, other = (attention_maps(factor) for factor in pool_alike(student, teacher))
    return F.l1_loss(own, other)


def _steps(*channels: int) -> list[tuple[int, int]]:
    return list(zip(channels[:-1], channels[1:], strict=True))


def _layer(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], in_channels: int, out_channels: int, norm: bool = False
) -> nn.Sequential:
    convolution = kind(in_channels, out_channels, kernel_size=3, padding=1)
    norms = [nn.BatchNorm2d(out_channels)] if norm else []
    return nn.Sequential(convolution, *norms, nn.LeakyReLU(_SLOPE))
