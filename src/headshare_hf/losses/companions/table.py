"""The companion table: what each loss is, where it comes from, and the weights that were published with it."""

from dataclasses import dataclass

from .abound import BoundaryLoss
from .adadistill import AdaDistillLoss
from .attention import AttentionLoss
from .base import CompanionLoss
from .correlation import CorrelationLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .factor import FactorLoss
from .fsp import FSPLoss
from .hint import HintLoss
from .kdmse import KDMSELoss
from .kdsvd import KDSVDLoss
from .nst import NSTLoss
from .pkt import PKTLoss
from .rkd import RKDLoss
from .similarity import SimilarityLoss
from .simkd import SimKDLoss
from .srrl import SRRLLoss
from .standardization import StandardizedKDLoss
from .vid import VIDLoss


# Images a step of the recipes for CIFAR-100 that the published weights belong to.
PUBLISHED_BATCH_SIZE = 64
# Of a stage before the training proper: `init_epochs` of RepDistiller's scripts.
PRETRAINING_EPOCHS = 30.0

_SCRIPTS = "scripts of the authors' code, Alibaba-MIIL/HeadSharingKD, as in RepDistiller"


@dataclass(frozen=True)
class Companion:
    """
    One row of the table.

    Attributes:
        loss (`type[CompanionLoss]`): The class.
        summary (`str`): What is compared, in one line.
        source (`str`): Where the weights come from.
        published_weight (`float`, *optional*): As published; `None` where no weight was.
        weight (`float`): The same in the units of this package.
        ce (`float`): Weight of the cross-entropy that was used with it.
        kd (`float`): Weight of the softened KL that was used with it.
    """

    loss: type[CompanionLoss]
    summary: str
    source: str
    published_weight: float | None
    weight: float
    ce: float = 1.0
    kd: float = 0.0


COMPANIONS: dict[str, Companion] = {
    "hint": Companion(HintLoss, "One map, through a regressor (FitNets)", _SCRIPTS, 100.0, 100.0),
    "attention": Companion(AttentionLoss, "Where the maps are large (AT)", _SCRIPTS, 1000.0, 1000.0),
    "similarity": Companion(
        SimilarityLoss,
        "Which images of the batch have similar maps (SP)",
        f"{_SCRIPTS}; divided by its batch size",
        3000.0,
        3000.0 / PUBLISHED_BATCH_SIZE,
    ),
    "correlation": Companion(CorrelationLoss, "Differences of neighbours in the batch (CC)", _SCRIPTS, 0.02, 0.02),
    "vid": Companion(VIDLoss, "Likelihood of the teacher's maps given the student's", _SCRIPTS, 1.0, 1.0),
    "rkd": Companion(RKDLoss, "Distances and angles between embeddings", _SCRIPTS, 1.0, 1.0),
    "pkt": Companion(
        PKTLoss,
        "Which images of the batch are neighbours",
        f"{_SCRIPTS}; divided by its batch size",
        30000.0,
        30000.0 / PUBLISHED_BATCH_SIZE,
    ),
    "abound": Companion(
        BoundaryLoss,
        "Which neurons are active (AB), before the training proper",
        f"{_SCRIPTS}; their weight 1 multiplies 0, the first stage has none",
        1.0,
        0.0,
    ),
    "factor": Companion(FactorLoss, "The last map, paraphrased and translated (FT)", _SCRIPTS, 200.0, 200.0),
    "fsp": Companion(
        FSPLoss,
        "How each map follows from the one before, before the training proper",
        f"{_SCRIPTS}; their weight 50 multiplies 0, the first stage has none",
        50.0,
        0.0,
    ),
    "nst": Companion(NSTLoss, "Which places the channels respond to", _SCRIPTS, 50.0, 50.0),
    "kdsvd": Companion(
        KDSVDLoss,
        "Singular vectors of neighbouring maps",
        "default of megvii-research/mdistiller; RepDistiller publishes none",
        1.0,
        1.0,
    ),
    "kdmse": Companion(
        KDMSELoss,
        "Squared difference of the probabilities",
        "no published weight; 100 turns the mean over CIFAR-100's classes into a sum",
        None,
        100.0,
    ),
    "dkd": Companion(
        DKDLoss,
        "KL, decoupled into the label's class and the others",
        "default of megvii-research/mdistiller (resnet32x4 to resnet8x4), which warms it up over 20 epochs; β differs by pair",
        1.0,
        1.0,
    ),
    "dist": Companion(
        DISTLoss,
        "Correlation of the probabilities, over classes and over images",
        "arXiv 2205.10536 for CIFAR-100, as Klayand/PCKA has it: 2 for both parts, T = 4",
        2.0,
        2.0,
    ),
    "kd_standardized": Companion(
        StandardizedKDLoss,
        "KL of standardised logits",
        "README of sunshangquan/logit-standardization-KD (weight 9, T = 2, cross-entropy as for KD)",
        9.0,
        9.0,
        ce=0.1,
    ),
    "srrl": Companion(
        SRRLLoss,
        "The embedding, and the logits that the teacher's classifier gives it (SRRL: ICLR 2021, openreview ZzwDy_wiWv)",
        "scripts of DefangChen/SimKD, which have it with KD",
        1.0,
        1.0,
        kd=1.0,
    ),
    "simkd": Companion(
        SimKDLoss,
        "The last map alone, in front of the teacher's classifier (SimKD: arXiv 2203.14001)",
        "scripts of DefangChen/SimKD",
        1.0,
        1.0,
        ce=0.0,
    ),
    "adadistill": Companion(
        AdaDistillLoss,
        "Labels, around centers made of the teacher's embeddings (AdaDistill)",
        "arXiv 2407.01332, which has no other loss",
        1.0,
        1.0,
        ce=0.0,
    ),
}
