"""
A page to try published models: a student beside its teacher, and verification of two images.

    python spaces/app.py --models NAMESPACE/STUDENT --teacher NAMESPACE/TEACHER --verification-models NAMESPACE/FACES

Names are Hub ids (`id@revision` chooses a revision) or folders. What is not given is read from the variables DEMO_MODELS,
DEMO_TEACHER and DEMO_VERIFICATION_MODELS, in which commas separate several names.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any


# Nothing is told to the makers of gradio. It reads the variable when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "0"

import gradio as gr  # noqa: E402
from demo_html import STYLE  # noqa: E402
from demo_pages import Settings, classify_page, list_thresholds, verify_page  # noqa: E402
from gradio.themes.utils.fonts import LocalFont  # noqa: E402


TITLE = "Shared heads"
INTRODUCTION = """# Small networks that share a classifier with a bigger one

Models trained with headshare_hf, which implements the knowledge distillation of
[arXiv 2201.06945](https://arxiv.org/abs/2201.06945). Everything is computed on the machine that serves this page; uploaded
images are removed within an hour.
"""
MAX_FILE_SIZE = "20mb"
# How often uploaded images are looked for, and at which age they are removed then, in seconds.
_EVERY, _AGE = 60, 3540


def parse(arguments: list[str], environment: dict[str, str]) -> argparse.Namespace:
    """Options, of which the environment says the defaults."""

    def names(text: str) -> list[str]:
        return [name.strip() for name in text.split(",") if name.strip()]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="ID", default=names(environment.get("DEMO_MODELS", "")))
    parser.add_argument("--teacher", metavar="ID", default=environment.get("DEMO_TEACHER", "").strip())
    parser.add_argument(
        "--verification-models",
        nargs="+",
        metavar="ID",
        default=names(environment.get("DEMO_VERIFICATION_MODELS", "")),
    )
    parser.add_argument("--port", type=int, help="of the page (default: a free one from 7860 on)")
    options = parser.parse_args(arguments)
    for name in (*options.models, options.teacher, *options.verification_models):
        if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
            parser.error(f"the folder {name} does not exist")
    return options


def build(settings: Settings) -> gr.Blocks:
    """The page."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(_EVERY, _AGE)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Tab("Classify"):
            _classify_tab(settings)
        with gr.Tab("Verify"):
            _verify_tab(settings, page)
    return page


def _classify_tab(settings: Settings) -> None:
    with gr.Row():
        student = _model_box("Student: Hub id or folder", settings.models, "student")
        teacher = gr.Textbox(
            settings.teacher, label="Teacher (optional: else the one of the training record)", elem_id="teacher"
        )
    files = gr.File(label="Images", file_count="multiple", height=140, elem_id="images")
    button = gr.Button("Classify", variant="primary", elem_id="classify")
    result = gr.HTML(elem_id="classes")
    button.click(
        lambda *entered: classify_page(settings, *entered), [student, teacher, files], result, show_progress="minimal"
    )


def _verify_tab(settings: Settings, page: gr.Blocks) -> None:
    model = _model_box("Verification model: Hub id or folder", settings.verification_models, "verifier")
    with gr.Row():
        first, second = (
            gr.File(label=f"{which} image", height=140, elem_id=f"{which.lower()}-image")
            for which in ("First", "Second")
        )
    far = gr.Radio([], label="Stored thresholds (FAR: false accept rate)", elem_id="far")
    note = gr.HTML(elem_id="thresholds", visible=False)
    button = gr.Button("Compare", variant="primary", elem_id="compare")
    result = gr.HTML(elem_id="comparison")

    def offer(name: str | None) -> tuple[Any, Any]:
        choices, text = list_thresholds(settings, name)
        return gr.Radio(choices=choices, value=choices[0][1] if choices else None), gr.HTML(text, visible=bool(text))

    model.change(offer, model, [far, note], show_progress="minimal")
    if settings.verification_models:
        page.load(offer, model, [far, note], show_progress="minimal")
    button.click(
        lambda *entered: verify_page(settings, *entered), [model, first, second, far], result, show_progress="minimal"
    )


def _model_box(label: str, names: tuple[str, ...], elem_id: str) -> gr.Dropdown:
    return gr.Dropdown(
        list(names), value=names[0] if names else None, label=label, allow_custom_value=True, elem_id=elem_id
    )


def main(arguments: list[str]) -> None:
    options = parse(arguments, dict(os.environ))
    settings = Settings(tuple(options.models), options.teacher, tuple(options.verification_models))
    # The semibold face that gradio brings along, and uses by default, has no small letters.
    theme = gr.themes.Default(font=[LocalFont("Source Sans Pro", weights=(400, 700)), "sans-serif"])
    build(settings).launch(
        theme=theme, css=STYLE, server_port=options.port, max_file_size=MAX_FILE_SIZE, ssr_mode=False, footer_links=[]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
