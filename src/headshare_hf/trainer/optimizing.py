"""What is optimized, on which schedule, and how the loss parts are logged."""

from typing import Any, cast

import torch
from torch import nn

from . import run_folder
from .caching import CachingTrainer
from .flat_walks import flat_walks
from .meter import LossMeter
from .optimizer_options import keep_form, uses_fused


class OptimizingTrainer(CachingTrainer):
    """The part of [`DistillationTrainer`] that deals with the optimizer, its schedule, and the log of the loss parts."""

    meter: LossMeter
    # Every part is a mean over its batch, so the Trainer has to divide by the number of accumulated batches.
    loss_is_scaled_for_ga = False

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay acts on; see `decay_norm_and_bias`."""
        if self.args.decay_norm_and_bias:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> tuple[Any, Any]:
        """See `transformers.Trainer.get_optimizer_cls_and_kwargs`, which has no fused form of SGD."""
        optimizer, options = CachingTrainer.get_optimizer_cls_and_kwargs(args, model)
        return optimizer, {**options, "fused": True} if uses_fused(args) else options

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """See `transformers.Trainer.create_optimizer`. A checkpoint does not change whether it is fused."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if is_new:
            keep_form(optimizer)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The schedule of `lr_decay_epochs` where that is set, and otherwise that of `lr_scheduler_type`."""
        if self.lr_scheduler is None and self.args.lr_decay_epochs is not None:
            per_epoch = num_training_steps / self.args.num_train_epochs
            milestones = [round(epoch * per_epoch) for epoch in self.args.lr_decay_epochs]
            rate = self.args.lr_decay_rate
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                cast(torch.optim.Optimizer, optimizer or self.optimizer),
                lambda step: rate ** sum(step >= milestone for milestone in milestones),
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _run_epoch(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._run_epoch(model, *args, **kwargs)
        with flat_walks(model):
            return super()._run_epoch(model, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of every loss part since the last log, as `loss_<part>`, to the training logs."""
        if "loss" in logs and self.meter.count:
            logs.update(self._read_meter())
        super().log(logs, start_time)

    def _read_meter(self) -> dict[str, float]:
        self._check_finite()
        means = self.accelerator.reduce(self.meter.sums() / self.meter.count, reduction="mean").tolist()
        self.meter.reset()
        return {f"loss_{name}": mean for name, mean in zip(self.meter.names, means, strict=True) if name != "loss"}

    def _check_finite(self) -> None:
        if not self.meter.names:
            return
        first_bad = self.meter.first_bad()
        if self.args.world_size > 1:
            # accelerate's `reduce` has no minimum.
            torch.distributed.all_reduce(first_bad, op=torch.distributed.ReduceOp.MIN)
        kept = run_folder.last_checkpoint(self.folder)
        remedy = f"Lower the learning rate or use float32; last good checkpoint: {kept or 'none yet'}"
        self.meter.check(first_bad, remedy)
