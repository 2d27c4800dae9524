"""How the repositories whose weights this package takes call the parts of their networks, and what wraps them."""

from collections.abc import Iterable, Mapping


# What torch puts before every name: DistributedDataParallel, and a compiled module.
WRAPPERS = ("module.", "_orig_mod.")
# Alibaba-MIIL/HeadSharingKD's module of a student with the teacher's classifier (`kd_teacher_head/kdth.py`).
_STUDENT = "model_s."
_TEACHER_HEAD = "t_head."
# What the reference's networks call their classifier (`architectures`: resnet and wrn, vgg, MobileNetV2, the others).
CLASSIFIERS = ("fc", "classifier", "classifier.0", "linear")


def unwrapped_names(names: Iterable[str]) -> dict[str, str]:
    """
    The names of a checkpoint without what torch puts before all of them, by what they are there.

    Args:
        names (`Iterable[str]`): All of its names.
    """
    found = {name: name for name in names}
    while found and any(all(name.startswith(wrapper) for name in found.values()) for wrapper in WRAPPERS):
        found = {key: name.partition(".")[2] for key, name in found.items()}
    return found


def student_names(names: Mapping[str, str]) -> dict[str, str]:
    """
    Of a student that was saved with its teacher's classifier beside it, the student's own names; any others as they are.

    Args:
        names (`Mapping[str, str]`): What [`unwrapped_names`] returned.
    """
    if not any(name.startswith(_STUDENT) for name in names.values()):
        return dict(names)
    return {key: name.removeprefix(_STUDENT) for key, name in names.items() if not name.startswith(_TEACHER_HEAD)}
