"""
What a student saves where it is deployed: its latency against its teacher's, as eager PyTorch, compiled, ONNX and int8.

    python benchmarks/inference.py

Single images and batches, in turn within each repetition. Every form must give the logits of eager PyTorch, to 1e-4
(int8: correlated with them; its accuracy is that of `examples/export.py` on real images). The ONNX rows need the extra
`onnx`.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import Case, agree, compare, parser, prepare, report
from steps import network, settle

from headshare_hf.hub import OnnxModel, export_onnx, quantize_onnx
from headshare_hf.hub.export_cost import NoiseImages


PAIRS = {
    "resnet8x4": ("resnet32x4", "resnet8x4", 32, 100),
    "mobilefacenet": ("iresnet100", "mobilefacenet", 112, 100),
}
QUICK = {"resnet8": ("resnet14", "resnet8", 32, 5)}


def forms(student: Any, size: int, folder: Path) -> dict[str, Any]:
    """The student in every form it can be deployed in."""
    student.save_pretrained(folder / "student")
    export_onnx(student, folder / "student.onnx")
    quantize_onnx(
        folder / "student.onnx", folder / "int8.onnx", mode="static", calibration=NoiseImages(64, (3, size, size))
    )
    return {
        "student, eager": student,
        "student, compiled": torch.compile(student),
        "student, ONNX": OnnxModel(folder / "student.onnx"),
        "student, ONNX int8": OnnxModel(folder / "int8.onnx"),
    }


def run_pair(name: str, pair: tuple[str, str, int, int], arguments: argparse.Namespace) -> None:
    """One table a batch size."""
    teacher_name, student_name, size, classes = pair
    fields = {"image_size": size} if size != 32 else {}
    teacher = settle(network(teacher_name, classes, seed=2, **fields), size, passes=1)
    student = settle(network(student_name, classes, seed=1, **fields), size, passes=1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        networks = {"teacher, eager": teacher, **forms(student, size, Path(folder))}
        for batch_size in (1, 2) if arguments.quick else (1, 32):
            images = torch.randn(batch_size, 3, size, size)
            expected = student(images).logits
            agreement = {
                form: agree(f"logits of {form}", model(images).logits, expected, 0.5 if "int8" in form else 1e-4)
                for form, model in networks.items()
                if form != "teacher, eager"
            }
            cases = [Case(form, partial(model, images)) for form, model in networks.items()]
            title = f"Inference, {teacher_name} and {student_name}, {size} pixels, batch {batch_size}"
            notes = ["difference: of the logits from those of the eager student; random weights"]
            report(
                f"inference_{name}_{batch_size}",
                title,
                compare(cases, arguments.rounds),
                agreement,
                {},
                arguments,
                notes,
            )


def main() -> None:
    """All pairs."""
    options = parser(__doc__)
    options.set_defaults(rounds=11, device="cpu")
    arguments = options.parse_args()
    prepare(arguments)
    for name, pair in (QUICK if arguments.quick else PAIRS).items():
        run_pair(name, pair, arguments)


if __name__ == "__main__":
    main()
