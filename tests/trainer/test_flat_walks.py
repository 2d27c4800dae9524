"""A step sets modes and gradients of all modules without walking through them, with the same end."""

import copy
import pickle

import pytest
import torch
from toys import ToyImages, arguments, resnet
from transformers import TrainerCallback

from headshare_hf import DistillationTrainer
from headshare_hf.trainer.flat_walks import flat_walks


def _count(monkeypatch, kind, name):
    calls, original = [], getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda self, *args: calls.append(args) or original(self, *args))
    return calls


class Watching(TrainerCallback):
    """Notes modes and gradients around every step, and leaves a part in evaluation mode once."""

    def __init__(self):
        self.modes, self.left = [], []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.left.append([name for name, parameter in model.named_parameters() if parameter.grad is not None])
        if state.global_step == 3:
            model.classifier.eval()

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.modes.append(all(module.training for module in model.modules()))


def _trainer(folder, callbacks=(), **fields):
    data = ToyImages()
    args = arguments(folder, num_train_epochs=2, **fields)
    return DistillationTrainer(resnet(), args, train_dataset=data, eval_dataset=data, callbacks=list(callbacks))


def test_modules_are_walked_through_at_the_start_and_after_changes_alone(tmp_path, monkeypatch):
    watching = Watching()
    trainer = _trainer(tmp_path, [watching], eval_strategy="steps", eval_steps=2)
    kind = type(trainer.model)
    modes, zeroed = _count(monkeypatch, kind, "train"), _count(monkeypatch, kind, "zero_grad")
    trainer.train()
    assert trainer.state.global_step == 6 and watching.modes == [True] * 6 and watching.left == [[]] * 6
    # Evaluation after steps 2, 4 and 6, and back for the steps after the first two and after the callback.
    assert modes.count((False,)) == 3 and modes.count((True,)) == 3
    assert zeroed == [()]
    assert not {"train", "zero_grad"} & trainer.model.__dict__.keys()


def test_after_an_error_the_module_is_as_it_was(tmp_path):
    class Failing(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            raise RuntimeError("stop")

    trainer = _trainer(tmp_path, [Failing()])
    with pytest.raises(RuntimeError, match="stop"):
        trainer.train()
    assert not {"train", "zero_grad"} & trainer.model.__dict__.keys()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_has_its_own_modes_and_gradients(again):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    module(torch.ones(1, 2)).sum().backward()
    with flat_walks(module):
        other = again(module)
        other[0].weight.grad = torch.ones(2, 2)
        other.eval().zero_grad()
        assert module[0].training and not other[0].training and other.train() is other
        assert module[0].weight.grad is not None and other[0].weight.grad is None
        module.zero_grad(set_to_none=False)
        assert module[0].weight.grad.abs().max() == 0
        module.zero_grad()
        assert module[0].weight.grad is None
