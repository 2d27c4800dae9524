"""What of a folder is published, and which folders are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from published_runs import FACE
from safetensors.torch import load_file, save_file
from toys import resnet, vit
from transformers import ViTImageProcessor

from headshare_hf import HeadShareImageProcessor
from headshare_hf.hub import TRAINING_FILE, select_files
from headshare_hf.models import CENTERS_FILE
from headshare_hf.models.hub_card import address_card
from headshare_hf.models.hub_commit import is_weights_file


CARD = '---\nlicense: mit\ntags:\n- headshare_hf\n---\n\npipeline(model="your-name/net")\n'
RESULT = """model-index:
- name: net
  results:
  - task: {type: image-classification}
    dataset: {type: someone/images, name: Images}
    metrics:
    - {type: accuracy, name: Top-1 accuracy, value: 99.0}
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    resnet(**FACE).save_pretrained(folder)
    HeadShareImageProcessor().save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_files_are_allowed_one_by_one(folder):
    wanted = set(select_files(folder))
    assert {"README.md", "config.json", "preprocessor_config.json", "model.safetensors", CENTERS_FILE} <= wanted
    assert wanted == {path.name for path in folder.iterdir()}
    (folder / "checkpoint-1").mkdir()
    strangers = (
        "run.json",
        "measured.json",
        "auxiliary.safetensors",
        "optimizer.pt",
        "teacher.safetensors",
        "model.onnx",
        "stray.py",
    )
    for name in (*strangers, "checkpoint-1/model.safetensors", "training_args.bin", ".env", "calibration.npy"):
        (folder / name).write_bytes(b"0")
    assert set(select_files(folder)) == wanted
    (folder / TRAINING_FILE).write_text("{}")
    assert set(select_files(folder)) == wanted | {TRAINING_FILE}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("README.md", "has no README.md, the model card; write it with `render_card`"),
        ("config.json", "has no config.json, the configuration; save the model"),
        ("preprocessor_config.json", "has no preprocessor_config.json, the image processor; save it"),
        ("model.safetensors", r"has no weights \(model.safetensors\)"),
        (CENTERS_FILE, f"has no {CENTERS_FILE}, the classifier"),
        ("margins.py", "has no margins.py, code of the model; save model and image processor again"),
    ],
)
def test_what_is_missing_is_named(name, message, folder):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=message):
        select_files(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", r"config.json is damaged \(it holds a list, no object\); save it again"),
        ("preprocessor_config.json", "[1]", r"preprocessor_config.json is damaged \(it holds a list, no object\)"),
        (TRAINING_FILE, "", f"{TRAINING_FILE} is damaged"),
        ("README.md", "---\nlicense: [\n---\n", "metadata of the model card .*README.md cannot be read"),
        ("README.md", "---\ntags: []\n---\n", "README.md says no license"),
        ("README.md", "no metadata", "README.md says no license"),
        (
            "README.md",
            CARD.replace("tags:", f"{RESULT}tags:"),
            r"README.md: `model-index\[0\].results\[0\].metrics\[0\].value` is 99.0; expected a fraction",
        ),
        (CENTERS_FILE, "", f"{CENTERS_FILE} is damaged or incomplete"),
        ("model.safetensors", "short", "model.safetensors is damaged or incomplete"),
    ],
)
def test_what_is_damaged_is_named(name, content, message, folder):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        select_files(folder)


@pytest.mark.parametrize("name", ["README.md", TRAINING_FILE])
@pytest.mark.parametrize("place", ["home", "beside", "there"])
def test_places_of_this_machine_are_refused(name, place, folder, tmp_path_factory):
    paths = {
        "home": Path.home() / "gone" / "téacher",
        "beside": folder.parent / "gone",
        "there": tmp_path_factory.mktemp("teacher"),
    }
    text = json.dumps({"teacher": {"name": str(paths[place])}})
    (folder / name).write_text(f"{CARD}\nThe teacher is `{paths[place]}`.\n" if name == "README.md" else text)
    with pytest.raises(ValueError, match=f"{name} contains '{paths[place]}', a path of this machine; write a Hub id"):
        select_files(folder)


def test_addresses_and_divisions_are_no_places(folder):
    text = "T = s / 8, https://a.org/usr/bin, file://usr/bin, <b>a</b>, a/usr/bin, and/or, ~/usr, /no/such/place, ./usr/bin"
    (folder / "README.md").write_text(f"{CARD}\n{text}\n")
    assert "README.md" in select_files(folder)


def test_a_truncated_file_of_weights_is_named(folder):
    content = (folder / CENTERS_FILE).read_bytes()
    (folder / CENTERS_FILE).write_bytes(content[:-4])
    with pytest.raises(ValueError, match=f"{CENTERS_FILE} is damaged or incomplete"):
        select_files(folder)


def test_shards_must_all_be_there(folder):
    resnet(**FACE).save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert len(shards) > 1 and {*shards, "model.safetensors.index.json"} <= set(select_files(folder))
    (folder / shards[1]).unlink()
    with pytest.raises(ValueError, match=f"{shards[1]} does not exist, but model.safetensors.index.json names it"):
        select_files(folder)


def test_whole_weights_beside_shards_are_refused(tmp_path):
    # As transformers leaves its own models, which then load as the older one.
    vit().save_pretrained(tmp_path)
    vit(seed=1).save_pretrained(tmp_path, max_shard_size="20KB")
    HeadShareImageProcessor().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text(CARD)
    with pytest.raises(
        ValueError,
        match="has both model.safetensors and model.safetensors.index.json, of two saves.*; delete the other",
    ):
        select_files(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "model.safetensors.index.json" in select_files(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("name", ["model.safetensors", CENTERS_FILE])
def test_values_that_are_not_finite_are_named(name, value, folder):
    tensors = load_file(folder / name)
    broken = sorted(name for name, tensor in tensors.items() if tensor.is_floating_point())[0]
    tensors[broken].view(-1)[-1] = value
    save_file(tensors, folder / name, metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=f"{name}: NaN or infinite values in {broken}; the training diverged, take an"
    ):
        select_files(folder)


def test_large_and_small_numbers_are_finite(folder):
    tensors = load_file(folder / CENTERS_FILE)
    largest = torch.finfo(torch.float32).max
    tensors = {name: torch.full_like(tensor, largest) for name, tensor in tensors.items()}
    tensors |= {"eight": torch.ones(3).to(torch.float8_e4m3fn), "none": torch.ones(0), "int": torch.ones(2).long()}
    tensors["four"] = torch.full((3,), 0x7F, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    save_file(tensors, folder / CENTERS_FILE, metadata={"format": "pt"})
    assert CENTERS_FILE in select_files(folder)


def test_an_image_processor_of_other_channels_is_refused(folder):
    HeadShareImageProcessor(image_mean=[0.5], image_std=[0.5]).save_pretrained(folder)
    with pytest.raises(
        ValueError,
        match="preprocessor_config.json: the image processor makes 1 channels and the model reads 3, by `image",
    ):
        select_files(folder)


def test_statistics_that_are_not_read_are_left_alone(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_channels": 1}))
    ViTImageProcessor(do_normalize=False).save_pretrained(folder)
    assert "preprocessor_config.json" in select_files(folder)
    # Ours brings images to as many channels as there are means, whether or not it normalises them.
    for processor in (ViTImageProcessor(), HeadShareImageProcessor(do_normalize=False)):
        processor.save_pretrained(folder)
        with pytest.raises(ValueError, match="the image processor makes 3 channels and the model reads 1"):
            select_files(folder)


@pytest.mark.parametrize("image_mean", [None, 0.5])
def test_statistics_that_tell_no_channels_are_left_alone(image_mean, folder):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_mean": image_mean}))
    assert path.name in select_files(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", r"is damaged \(it has no `weight_map`\); save the model again"),
        ('{"weight_map": {}}', r"is damaged \(it has no `weight_map`\)"),
        ('{"weight_map": {"a": 1}}', r"is damaged \(it has no `weight_map`\)"),
        ("[]", r"is damaged \(it holds a list, no object\)"),
    ],
)
def test_an_index_without_shards_is_named(content, message, folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=f"model.safetensors.index.json {message}"):
        select_files(folder)


def test_centers_inside_of_the_weights_will_do(folder):
    tensors = {**load_file(folder / "model.safetensors"), **load_file(folder / CENTERS_FILE)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / CENTERS_FILE).unlink()
    assert CENTERS_FILE not in select_files(folder)


def test_weights_without_code_are_refused(folder):
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text())
        del content["auto_map"]
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="does not say where the code of the model is"):
        select_files(folder)


def test_code_of_other_repositories_is_not_looked_for(folder):
    path = folder / "preprocessor_config.json"
    backends = {"torchvision": "someone/else--processing.Fast", "pil": "someone/else--processing.Slow"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoImageProcessor": backends}}))
    assert "image_processing_headshare.py" not in select_files(folder)


def test_code_in_a_list_with_gaps_is_found(folder):
    path = folder / "preprocessor_config.json"
    classes = [None, "image_processing_headshare.HeadShareImageProcessor", "someone/else--processing.Fast"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoImageProcessor": classes}}))
    assert "image_processing_headshare.py" in select_files(folder)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        select_files(tmp_path / "nowhere")


def test_examples_of_a_card_load_what_is_published():
    assert 'model="someone/net"' in address_card(CARD, "someone/net")
    assert address_card(CARD.replace("- headshare_hf", "- other"), "someone/net").endswith('model="your-name/net")\n')


@pytest.mark.parametrize("tags", ["tags: [other, headshare_hf]", "tags:\n  - other\n  - headshare_hf"])
def test_tags_may_be_written_in_any_style(tags):
    card = CARD.replace("tags:\n- headshare_hf", tags)
    assert 'model="someone/net"' in address_card(card, "someone/net")


def test_a_list_in_the_text_is_no_list_of_tags():
    card = CARD.replace("- headshare_hf", "- other") + "\n- headshare_hf\n"
    assert address_card(card, "someone/net") == card


def test_weights_are_told_from_other_files():
    names = ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", CENTERS_FILE]
    assert all(map(is_weights_file, names))
    assert not any(map(is_weights_file, ["auxiliary.safetensors", "onnx/model.onnx", "README.md", "old/" + names[0]]))
