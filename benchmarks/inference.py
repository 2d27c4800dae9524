"""
What a student saves where it is deployed: its latency against its teacher's, as eager PyTorch, compiled, ONNX and int8.

    python benchmarks/inference.py [--device cuda]

Single images and batches, in turn within each repetition. Every form must give the logits of eager PyTorch, to 1e-4. Of
int8 the relative error and the share of images whose first class stays are shown and must be within limits; its accuracy
is that of `examples/export.py` on real images. onnxruntime is used on the CPU, where these rows need the extra `onnx`.
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
EAGER, INT8, TOP = "eager", "ONNX int8", "top-1 as eager"
# Relative error of the logits, and the share of images that keep their class. Deep untrained networks amplify the rounding
# of int8 more than trained ones do: of a single image it was 0.6 with weights of seven bits and with such of eight. So the
# share tells whether a file is broken; chance is one in as many classes as there are.
ALLOWED, ALLOWED_INT8, SMALLEST_TOP = 1e-4, 1.0, 0.3


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
        calibration = [{"pixel_values": image} for image in varied_images(64, size, seed=1)]
        quantize_onnx(plain, small, mode="static", calibration=calibration)
        onnx = {f"{role}, ONNX": OnnxModel(plain), f"{role}, {INT8}": OnnxModel(small)}
    model = model.to(device)
    return {f"{role}, {EAGER}": model, f"{role}, compiled": torch.compile(model, dynamic=False), **onnx}


def same_class(models: dict[str, Any], size: int, count: int, device: str) -> dict[str, float]:
    """Share of images for which each form names the class that its network in eager PyTorch names."""
    images = varied_images(count, size, seed=2).to(device)
    # Compiled for the sizes that are measured alone.
    first = {form: model(images).logits.argmax(1) for form, model in models.items() if "compiled" not in form}
    found = {
        form: float((named == first[eager_of(form)]).double().mean())
        for form, named in first.items()
        if "ONNX" in form
    }
    for form, share in found.items():
        if share < (SMALLEST_TOP if INT8 in form else 1):
            raise SystemExit(f"{form} names the class of eager PyTorch for {share:.1%} of the images alone")
    return found


def eager_of(form: str) -> str:
    """The form that another one has to agree with."""
    return f"{form.partition(',')[0]}, {EAGER}"


def differences(models: dict[str, Any], images: torch.Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """How far the logits of every form are off those of eager PyTorch, and how far they may be."""
    logits = {form: model(images).logits.cpu() for form, model in models.items()}
    allowed = {form: ALLOWED_INT8 if INT8 in form else ALLOWED for form in models if EAGER not in form}
    found = {form: agree(f"logits of {form}", logits[form], logits[eager_of(form)], allowed[form]) for form in allowed}
    return found, allowed


def run_pair(name: str, pair: tuple[str, str, int, int], arguments: argparse.Namespace) -> None:
    """One table a batch size."""
    teacher, student, size, classes = pair
    # There is a limit to how many forms of one function are kept compiled.
    torch._dynamo.reset()
    count = 32 if arguments.quick else 128
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        models: dict[str, Any] = {}
        for seed, (role, backbone) in enumerate({"teacher": teacher, "student": student}.items()):
            model = untrained(backbone, classes, size, seed)
            models.update(forms(role, model, size, Path(folder), arguments.device))
        kept = same_class(models, size, count, arguments.device)
        for batch_size in (1, 2) if arguments.quick else (1, 32):
            images = varied_images(batch_size, size, seed=3).to(arguments.device)
            found, allowed = differences(models, images)
            rows = compare([Case(form, partial(model, images)) for form, model in models.items()], arguments.rounds)
            title = f"Inference, {teacher} and {student}, {size} pixels, batch {batch_size}"
            notes = [
                "difference: of the logits from those of the same network in eager PyTorch; random weights",
                f"{TOP}: share of {count} random images for which a form names the class that eager PyTorch names",
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
