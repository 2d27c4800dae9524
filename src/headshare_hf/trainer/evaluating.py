"""Running the student, and scoring it on images and on pairs of images."""

from typing import Any

import torch
from accelerate.utils import broadcast
from torch import nn

from ..evaluation import ClassificationMetrics, Verifier, verification_metrics
from ..evaluation.processes import broadcast as shared_by_main
from ..losses import cross_entropy
from ..models import EmbeddingTap
from .callbacks import VerificationCallback
from .pair_checks import check_best_metric, check_identities
from .publishing import PublishingTrainer
from .student_module import StudentOutput
from .teacher import FrozenTeacher
from .teacher_cache import CachedTeacher


class EvaluatingTrainer(PublishingTrainer):
    """The part of [`DistillationTrainer`] that runs the student, in training and in evaluation, and scores it."""

    teacher: FrozenTeacher | CachedTeacher | None
    verifier: Verifier | None
    _tap: EmbeddingTap | None
    _needs_embedding: bool
    # Step after which the network was verified last, and the metrics.
    _verified: tuple[int, dict[str, float]] = (-1, {})

    def _watch(self, verifier: Verifier | None, model: Any, train_dataset: Any) -> None:
        self.verifier = verifier
        if getattr(model.config, "verification_thresholds", None) is not None:
            # They were measured on the embeddings that training is about to change.
            model.config.verification_thresholds = None
        if verifier is not None:
            check_identities(verifier, train_dataset)
            check_best_metric(verifier, self.args, self.eval_dataset)
            self.add_callback(VerificationCallback(self))

    def _in_layout(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values.contiguous(memory_format=torch.channels_last) if self.args.channels_last else pixel_values

    def _run_student(self, model: nn.Module, pixel_values: torch.Tensor) -> StudentOutput:
        """What the student makes of a batch, as far as this run reads it."""
        # Only the wrapped model may be called: DDP and autocast live in its forward.
        output = model(pixel_values=pixel_values)
        embeddings = None
        if self._needs_embedding:
            embeddings = output["embeddings"] if self._tap is None else self._tap.take()
        return StudentOutput(output.get("logits"), embeddings, output.get("projected", embeddings), output.get("maps"))

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """See `transformers.Trainer.evaluation_loop`."""
        if self.is_in_train:
            # A loss that is not finite is named here, and not by the metrics that would meet its consequences.
            self._check_finite()
        self._share_statistics()
        if isinstance(self.compute_metrics, ClassificationMetrics):
            # An evaluation that was interrupted has left its counts.
            self.compute_metrics.reset()
        with self.whole_classes():
            output = super().evaluation_loop(*args, **kwargs)
        if kwargs.get("metric_key_prefix", "eval") == "eval":
            output = output._replace(metrics={**(output.metrics or {}), **self._verified_now()})
        return output

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """
        See `transformers.Trainer.evaluate`. While a network trains, what [`verify`] has found after the same step is
        among the metrics, so that `metric_for_best_model` may name it; without an `eval_dataset` it is all of them.
        """
        metrics = super().evaluate(eval_dataset, *args, **kwargs)
        verified = {} if eval_dataset else self._verified_now()
        if verified and isinstance(self.eval_dataset, dict):
            # transformers has asked the callbacks for single sets at most, without these numbers.
            metrics.update(verified)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _verified_now(self) -> dict[str, float]:
        step, metrics = self._verified
        return metrics if self.is_in_train and step == self.state.global_step else {}

    def verify(self, metric_key_prefix: str = "eval") -> dict[str, float]:
        """
        Scores the student's embeddings on the sets of `verifier` and logs the result.

        Returns:
            `dict[str, float]`: [`verification_metrics`] and [`Verifier.intervals`] with the prefix; empty without a
            verifier, and in every process but the main one.
        """
        if self.verifier is None:
            return {}
        self._share_statistics()
        results = self.verifier(self.whole_student(), self.accelerator)
        found = {**verification_metrics(results), **self.verifier.intervals(results)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self._verified = self.state.global_step, shared_by_main(self.accelerator, metrics)
        if metrics:
            self.log(metrics)
        return metrics

    def _share_statistics(self) -> None:
        """
        Gives every process the batch statistics of the first one, which are those that are saved. DDP does that at the
        start of a training step only, so that after the last one each process would evaluate another network.
        """
        if self.args.world_size > 1:
            for buffer in self.student.buffers():
                broadcast(buffer, from_process=0)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, Any, torch.Tensor | None]:
        """
        Evaluates the student alone: cross-entropy and logits of its own head. With `eval_teacher_head_weight`, the
        predictions are a pair, the second being the log of the mixture p' = (1 - w) p + w p_TH of arXiv 2201.06945.
        """
        inputs = self._prepare_inputs(inputs)
        labels = inputs.get("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            output = self._run_student(model, self._in_layout(inputs["pixel_values"]))
            loss = None if labels is None else cross_entropy(output.logits, labels)
            predictions: Any = output.logits.float()
            if self.args.eval_teacher_head_weight and self.teacher is not None:
                predictions = (predictions, self._mixture(predictions, self.teacher.head(output.shared).float()))
        return loss, None if prediction_loss_only else predictions, labels

    def _mixture(self, logits: torch.Tensor, teacher_head_logits: torch.Tensor) -> torch.Tensor:
        weight = self.args.eval_teacher_head_weight
        mixed = (1 - weight) * logits.softmax(dim=1) + weight * teacher_head_logits.softmax(dim=1)
        # A probability that underflows must stay a number that can be ranked.
        return mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log()


def something_to_evaluate(eval_dataset: Any, verifier: Verifier | None, args: Any) -> Any:
    """The evaluation set for transformers, which evaluates after every epoch where there is one: with pairs alone, no images."""
    wanted = eval_dataset is None and verifier is not None and args.eval_strategy != "no"
    return {} if wanted else eval_dataset
