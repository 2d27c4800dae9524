"""
What a student saves where it is deployed: its latency against its teacher's, as eager PyTorch, compiled, ONNX and int8.

    python benchmarks/inference.py [--device cuda]

Single images and batches, in turn within each repetition. Every form must give the logits of eager PyTorch, to 1e-4. Of
int8 the mean relative error over many images and the share of them whose first class stays are shown and must be within
limits; its accuracy is that of `examples/export.py` on real images. onnxruntime is used on the CPU, where these rows need the extra `onnx`.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import Case, agree, compare, parser, prepare, report
from steps import network
from torch import nn
from torch.nn import functional as F

from headshare_hf.hub import OnnxModel, export_onnx, quantize_onnx


PAIRS = {
    "resnet8x4": ("resnet32x4", "resnet8x4", 32, 100),
    "mobilefacenet": ("iresnet100", "mobilefacenet", 112, 100),
}
QUICK = {"resnet8": ("resnet14", "resnet8", 32, 5)}
# Large networks take long to compile, once for each batch size, and it is the student that is deployed.
NOT_COMPILED = {"iresnet100"}
EAGER, INT8, TOP = "eager", "ONNX int8", "top-1 as eager"
# Relative error of the logits, and the share of images that keep their class. Deep untrained networks amplify the rounding
# of int8 more than trained ones do, so that these tell a broken file, whose error is 1 or more, from a whole one; by chance
# one image in as many as there are classes keeps its class.
ALLOWED, ALLOWED_INT8, SMALLEST_TOP = 1e-4, 0.6, 0.3


def varied_images(count: int, size: int, seed: int) -> torch.Tensor:
    """Colored patches under noise, which differ from one another as noise alone would not."""
    generator = torch.Generator().manual_seed(seed)
    patches = F.interpolate(torch.randn(count, 3, 4, 4, generator=generator), size=size, mode="bilinear")
    return patches + 0.3 * torch.randn(count, 3, size, size, generator=generator)


@torch.no_grad()
def untrained(backbone: str, classes: int, size: int, seed: int) -> nn.Module:
    """
    A network with the statistics of such images, through which these stay different, and with biases by which it does not
    name one class for all of them.
    """
    model = network(backbone, classes, seed=seed, **({"image_size": size} if size != 32 else {})).train()
    images = varied_images(32, size, seed=0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # The mean of what is seen, in place of a little of it.
            module.momentum = None
    model(images)
    model.eval().classifier.bias -= model(images).logits.mean(dim=0)
    return model


def forms(role: str, model: nn.Module, size: int, folder: Path, device: str) -> dict[str, Any]:
    """A network in every form it can be deployed in; ONNX where that device is the CPU."""
    onnx: dict[str, Any] = {}
    if device == "cpu":
        plain, small = folder / f"{role}.onnx", folder / f"{role}_int8.onnx"
        export_onnx(model, plain)
        calibration = [{"pixel_values": image} for image in varied_images(32, size, seed=1)]
        quantize_onnx(plain, small, mode="static", calibration=calibration)
        onnx = {f"{role}, ONNX": OnnxModel(plain), f"{role}, {INT8}": OnnxModel(small)}
    model = model.to(device)
    known = model.config.backbone not in NOT_COMPILED
    compiled = {f"{role}, compiled": torch.compile(model, dynamic=False)} if known else {}
    return {f"{role}, {EAGER}": model, **compiled, **onnx}


def judged(models: dict[str, Any], size: int, count: int, device: str) -> tuple[dict[str, float], dict[str, float]]:
    """
    How far the logits of ONNX are off those of eager PyTorch over many images, and the share of these for which it names
    the same class. Of int8 the difference is a mean over all logits: that of the worst one is a matter of chance.

    Raises:
        SystemExit: It is not the same network any more.
    """
    images = varied_images(count, size, seed=2).to(device)
    # Compiled for the sizes that are measured alone.
    logits = {form: model(images).logits.cpu().double() for form, model in models.items() if "compiled" not in form}
    differences, kept = {}, {}
    for form, found in logits.items():
        if "ONNX" not in form:
            continue
        expected = logits[eager_of(form)]
        kept[form] = float((found.argmax(1) == expected.argmax(1)).double().mean())
        if kept[form] < (SMALLEST_TOP if INT8 in form else 1):
            raise SystemExit(f"{form} names the class of eager PyTorch for {kept[form]:.1%} of the images alone")
        if INT8 in form:
            differences[form] = float((found - expected).norm() / expected.norm())
            if not differences[form] <= ALLOWED_INT8:
                raise SystemExit(f"logits of {form} differ by {differences[form]:.0%}, more than {ALLOWED_INT8:.0%}")
        else:
            differences[form] = agree(f"logits of {form}", found, expected, ALLOWED)
    return differences, kept


def compiled_differences(models: dict[str, Any], images: torch.Tensor) -> dict[str, float]:
    """How far the logits of compiled networks are off those of eager PyTorch, for what is measured."""
    return {
        form: agree(
            f"logits of {form}", model(images).logits.cpu(), models[eager_of(form)](images).logits.cpu(), ALLOWED
        )
        for form, model in models.items()
        if "compiled" in form
    }


def eager_of(form: str) -> str:
    """The form that another one has to agree with."""
    return f"{form.partition(',')[0]}, {EAGER}"


def run_pair(name: str, pair: tuple[str, str, int, int], arguments: argparse.Namespace) -> None:
    """One table a batch size."""
    teacher, student, size, classes = pair
    # There is a limit to how many forms of one function are kept compiled.
    torch._dynamo.reset()
    count = 32 if arguments.quick else 64
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        models: dict[str, Any] = {}
        for seed, (role, backbone) in enumerate({"teacher": teacher, "student": student}.items()):
            model = untrained(backbone, classes, size, seed)
            models.update(forms(role, model, size, Path(folder), arguments.device))
        known, kept = judged(models, size, count, arguments.device)
        for batch_size in (1, 2) if arguments.quick else (1, 32):
            images = varied_images(batch_size, size, seed=3).to(arguments.device)
            found = known | compiled_differences(models, images)
            allowed = {form: ALLOWED_INT8 if INT8 in form else ALLOWED for form in found}
            rows = compare([Case(form, partial(model, images)) for form, model in models.items()], arguments.rounds)
            title = f"Inference, {teacher} and {student}, {size} pixels, batch {batch_size}"
            notes = [
                "difference: of the logits from those of the same network in eager PyTorch, the largest or, for int8, "
                f"the root of the mean square, of ONNX over {count} images; random weights",
                f"{TOP}: share of these random images for which a form names the class that eager PyTorch names",
            ]
            table, limits = f"inference_{name}_{batch_size}", {"difference": allowed}
            report(table, title, rows, found, {}, arguments, notes, {TOP: kept}, limits)


def main() -> None:
    """All pairs."""
    options = parser(__doc__)
    options.set_defaults(rounds=7)
    arguments = options.parse_args()
    prepare(arguments)
    for name, pair in (QUICK if arguments.quick else PAIRS).items():
        run_pair(name, pair, arguments)


if __name__ == "__main__":
    main()
