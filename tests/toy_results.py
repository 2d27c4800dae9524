"""Results of a comparison that nothing was trained for."""

from headshare_hf.trainer.comparison import Cell, Comparison
from headshare_hf.trainer.comparison_checks import AROUND, TEACHER
from headshare_hf.trainer.comparison_results import ComparisonResults


METHODS = {
    "alone": {"method": "plain"},
    "kd": {"method": "kd"},
    "sh": {"method": "sh_kd", "temporary_student": "kd"},
}
ACCURACY = {"kd": [0.5, 0.6, 0.7], "alone": [0.4, 0.51, 0.59], "sh": [0.55, 0.66, 0.74]}
DATA = {"images": {"train": 9, "validation": 3, "test": 4}, "labels": {"test": "abc"}, "classes": 2, "size": [3, 8, 8]}


def table_comparison(**changes):
    content = {
        "data": {"name": "images", "validation_fraction": 0.25},
        "student": {"backbone": "resnet8"},
        "teacher": {"backbone": "resnet14"},
        "training": {"num_train_epochs": 2},
        "methods": METHODS,
        "baseline": "kd",
    }
    return Comparison(**{**content, **changes})


def cell_result(row, accuracy, seconds=10.0, code="1", data=None, memory=100.0):
    bins = {"edges": [0.0, 0.5, 1.0], "counts": [0, 4], "confidence": [None, 0.8], "accuracy": [None, accuracy]}
    measured = {
        "accuracy": accuracy,
        "calibration": {"expected_calibration_error": abs(0.8 - accuracy), **bins},
        "mean_per_class_accuracy": accuracy,
        "effective_dimension": 3.0,
        "cka": 0.5,
        "agreement": 0.5,
        "teacher_head_accuracy": None,
    }
    cost = {"train_seconds": seconds, "peak_memory_mib": memory, "parameters": 4321, "training_only_parameters": 7}
    return {
        "code": code,
        "data": data or DATA,
        "last": measured,
        "best": {"accuracy": accuracy + 0.01, "mean_per_class_accuracy": accuracy, "epoch": 1.0},
        "curve": [[1.0, accuracy / 2], [2.0, accuracy]],
        "loss_curve": [[1.0, 2.0], [2.0, 1.0]],
        "cost": cost,
    }


def filled_results(path, rows=("kd", "alone", "sh")):
    results = ComparisonResults(path, table_comparison())
    results.add(Cell(TEACHER, 0, {}), cell_result(TEACHER, 0.9))
    for row in rows:
        for seed, accuracy in enumerate(ACCURACY[row]):
            results.add(Cell(row, seed, {}), cell_result(row, accuracy))
    for seed in range(3):
        results.add(Cell(f"{AROUND}kd", seed, {}), cell_result(f"{AROUND}kd", 0.9, seconds=100.0))
    return results
