"""What the metadata of a card of this package may say of results."""

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from headshare_hf.models.card_metrics import METRICS, PAIR_METRICS, SEARCH_METRICS
from headshare_hf.models.hub_card import check_card


NAMES = {"tar": "TAR at FAR 1e-3 (rule at_most), lfw, 6,000 pairs", "roc_auc": "Area under the ROC curve, lfw"}


def _card(tags=("headshare_hf",), **metric):
    found = {"metric_type": "accuracy", "metric_name": "Top-1 accuracy", "metric_value": 0.5, **metric}
    result = EvalResult("image-classification", "someone/images", "Images", **found)
    data = ModelCardData(license="mit", tags=list(tags), model_name="net", eval_results=[result])
    return ModelCard(f"---\n{data.to_yaml()}\n---\n")


KNOWN = [*METRICS.values(), *PAIR_METRICS.values(), *SEARCH_METRICS.values()]


@pytest.mark.parametrize("metric", KNOWN, ids=lambda metric: metric.name)
def test_every_metric_of_a_card_is_allowed(metric):
    name = metric.name.format(folds=10, far="1e-3", fpir="0.01", k=5)
    check_card(_card(metric_type=metric.type, metric_name=f"{name}, a set"))


@pytest.mark.parametrize("value", [0, 1, 0.25])
def test_fractions_are_allowed(value):
    check_card(_card(metric_value=value))


@pytest.mark.parametrize(
    "metric, message",
    [
        (
            {"metric_type": "acuracy_foo"},
            r"the model card: `model-index\[0\].results\[0\].metrics\[0\].type` is 'acuracy_foo'; did you mean "
            "'accuracy'. A card of headshare_hf knows: accuracy, .*roc_auc.*tar",
        ),
        ({"metric_type": "zzz"}, "type` is 'zzz'; A card of headshare_hf knows: accuracy"),
        (
            {"metric_name": "Top-2 accuracy"},
            r"metrics\[0\].name` is 'Top-2 accuracy'; of type 'accuracy' .* knows: Top-1 accuracy, .*Accuracy over "
            r"\{folds\} folds",
        ),
        ({"metric_name": None}, "name` is None; of type 'accuracy'"),
        ({"metric_type": "eer", "metric_name": NAMES["tar"]}, "of type 'eer' .* knows: Equal error rate"),
        ({"metric_type": "tar", "metric_name": "TAR at FAR 1e-3 (rule most)"}, "of type 'tar' .* knows: TAR at FAR"),
        ({"metric_value": 99.0}, r"metrics\[0\].value` is 99.0; expected a fraction in \[0, 1\], not per cent"),
        ({"metric_value": -0.1}, "value` is -0.1; expected a fraction"),
        ({"metric_value": "0.5"}, "value` is '0.5'; expected a fraction"),
        ({"metric_value": True}, "value` is True; expected a fraction"),
        ({"metric_value": float("nan")}, "value` is nan; expected a fraction"),
    ],
)
def test_a_metric_that_no_card_of_this_package_has_is_named(metric, message):
    with pytest.raises(ValueError, match=message):
        check_card(_card(**metric))
    # What others measure on their own models is theirs.
    check_card(_card(tags=("other",), **metric))


def test_results_without_metrics_and_cards_without_results():
    check_card(ModelCard("---\nlicense: mit\ntags:\n- headshare_hf\n---\n"))
    check_card(_card(metric_type="tar", metric_name=NAMES["tar"]))
    check_card(_card(metric_type="roc_auc", metric_name=NAMES["roc_auc"]))


def _listing(metrics, tags=("headshare_hf",)):
    data = ModelCardData(license="mit", tags=list(tags), metrics=metrics)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n")


def test_every_type_of_a_metric_may_be_listed():
    check_card(_listing(sorted({metric.type for metric in KNOWN})))


@pytest.mark.parametrize(
    "metrics, message",
    [
        (
            ["acuracyy"],
            r"the model card: `metrics\[0\]` is 'acuracyy'; did you mean 'accuracy'\? A card of headshare_hf ",
        ),
        (["accuracy", "rocauc"], r"`metrics\[1\]` is 'rocauc'; did you mean 'roc_auc'\?"),
        (["zzz"], r"`metrics\[0\]` is 'zzz'; A card of headshare_hf knows: accuracy, .*tar"),
        ([None], r"`metrics\[0\]` is None; A card"),
        ("accuracy", r"`metrics` is 'accuracy'; expected a list, such as \[accuracy\]"),
    ],
)
def test_a_listed_metric_that_no_card_of_this_package_has_is_named(metrics, message):
    with pytest.raises(ValueError, match=message):
        check_card(_listing(metrics))
    check_card(_listing(metrics, tags=("other",)))
