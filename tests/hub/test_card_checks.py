"""A model card in which something is missing or wrong is refused, and the field named."""

from dataclasses import replace

import pytest
from card_facts import CARD, PLAIN, REQUIRED, RESULT, changed, text

from headshare_hf.hub import render_card
from headshare_hf.hub.card_checks import check_license


@pytest.mark.parametrize("path", REQUIRED)
def test_a_missing_field_is_named(path):
    with pytest.raises(ValueError, match=f"`{path}` is None; a model card needs it"):
        render_card(changed(CARD, path, None))


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("model.backbone", "", "`model.backbone` is ''; a model card needs it"),
        ("model.backbone", "  ", "`model.backbone` is '  '; a model card needs it"),
        ("model.backbone", "a\nb", "must be one line without"),
        ("dataset.license", "a | b", "`dataset.license` is 'a | b'; it must be one line without".replace("|", r"\|")),
        ("dataset.splits", {}, "`dataset.splits` is {}; a model card needs it"),
        ("training.versions", {"torch": ""}, r"`training.versions\['torch'\]` is ''; a model card needs it"),
        ("model.image_mean", (0.5, None, 0.5), r"`model.image_mean\[1\]` is None"),
        ("model.image_mean", (0.5,), "`model.image_mean` has 1 channels and `model.image_std` 3"),
        ("model.image_std", (0.5, float("nan"), 0.5), r"`model.image_std\[1\]` is nan; .* finite"),
        ("model.channel_order", "grb", "`model.channel_order` is 'grb'; allowed: 'rgb', 'bgr'"),
        ("model.num_labels", 0, "`model.num_labels` is 0; it must be positive"),
        ("model.repo_id", "some one/net", "`model.repo_id` is 'some one/net', which is no Hub id"),
        ("dataset.id", "CIFAR 100", "`dataset.id` is 'CIFAR 100', which is no Hub id"),
        ("base_model", "a/b/c", "`base_model` is 'a/b/c', which is no Hub id"),
        ("training.wall_seconds", 0, "`training.wall_seconds` is 0; it must be positive"),
        ("license", "Apache 2.0", "`license` is 'Apache 2.0'; expected an identifier of the Hub"),
        ("license", "other", "`license_name` is missing for license 'other'"),
        ("license_link", "LICENSE", "`license_link` has no place beside license 'apache-2.0'"),
        ("results", (), r"`results` is \(\); a model card needs it"),
        ("teacher", None, "`teacher` is missing, but method 'th_kd' learns from one"),
        ("teacher.metrics", {"accuracy": 79.4}, r"`teacher.metrics\['accuracy'\]` is 79.4; expected a fraction"),
        ("teacher.metrics", {"accuracies": 0.8}, "unknown metric 'accuracies'; did you mean accuracy"),
        ("method.temperature", None, "`method.temperature` is missing, but the objective has a softened KL"),
    ],
)
def test_what_is_wrong_is_named(path, value, message):
    with pytest.raises(ValueError, match=message):
        render_card(changed(CARD, path, value))


@pytest.mark.parametrize(
    "result, message",
    [
        ({"value": None}, r"`results\[0\].value` is None; a model card needs it"),
        ({"dataset_name": ""}, r"`results\[0\].dataset_name` is ''"),
        ({"dataset_id": "a b"}, r"`results\[0\].dataset_id` is 'a b', which is no Hub id"),
        ({"value": 73.9}, r"`results\[0\].value` is 73.9; expected a fraction in \[0, 1\], not per cent"),
        ({"num_images": 0}, r"`results\[0\].num_images` is 0; it must be positive"),
        ({"num_seeds": 3}, r"`results\[0\].standard_error` is missing, but the value is a mean over 3 seeds"),
        ({"standard_error": 0.1}, r"`results\[0\].standard_error` is 0.1, but one seed has none"),
        (
            {"metric": "eval_accuracy"},
            "unknown metric 'eval_accuracy'; did you mean .*accuracy.* A model card knows: ",
        ),
        ({"metric": "zzz"}, "unknown metric 'zzz'; A model card knows: accuracy, top5_accuracy"),
        ({"task": "image-clasification"}, "unknown task 'image-clasification'; did you mean image-classification"),
    ],
)
def test_a_wrong_result_is_named(result, message):
    with pytest.raises(ValueError, match=message):
        render_card(replace(CARD, results=(replace(RESULT, **result),)))


def test_a_teacher_that_nothing_uses_is_refused():
    with pytest.raises(ValueError, match="`teacher` is given, but nothing of method 'plain' uses it"):
        render_card(replace(PLAIN, teacher=CARD.teacher))
    head_only = replace(PLAIN.method, options={"student_head": "teacher_frozen"})
    assert "The teacher is someone" in text(replace(PLAIN, teacher=CARD.teacher, method=head_only))
    with pytest.raises(ValueError, match="`teacher` is missing"):
        render_card(replace(PLAIN, method=head_only))


@pytest.mark.parametrize(
    "given, message",
    [
        (("Apache 2.0", None, None), "^`data.weights_license` is 'Apache 2.0'; expected an identifier of the Hub"),
        (("other", None, "LICENSE"), "^`data.weights_license_name` is missing for license 'other'"),
        (("other", "mine", None), "^`data.weights_license_link` is missing for license 'other'"),
        (("mit", "mine", None), "^`data.weights_license_name` has no place beside license 'mit'"),
        (("mit", None, "LICENSE"), "^`data.weights_license_link` has no place beside license 'mit'"),
    ],
)
def test_the_license_of_weights_is_named_as_the_recipe_calls_it(given, message):
    with pytest.raises(ValueError, match=message):
        check_license(*given, "data.weights_")


def test_a_license_of_ones_own_has_name_and_link():
    check_license("other", "mine", "LICENSE", "data.weights_")
    check_license("mit", None, None, "data.weights_")
