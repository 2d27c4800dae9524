from pathlib import Path

from setuptools import find_packages, setup


# Lower bounds are versions that the test suite was run with, not guesses.
INSTALL_REQUIRES = [
    "torch>=2.11",
    "torchvision>=0.26",
    "transformers>=5.17,<6",
    "datasets>=5.0",
    "accelerate>=1.15",
    "huggingface-hub>=1.33",
    "safetensors>=0.8",
    "filelock>=4.3",
    "evaluate>=0.4.6",
    "timm>=1.0.31",
    "matplotlib>=3.9",
    "numpy>=1.26",
    "scipy>=1.13",
    "pyarrow>=21",
    "pillow>=11",
    "pyyaml>=6",
    "tqdm>=4.66",
    "jinja2>=3.1",  # huggingface_hub needs it to render a model card
]
DEMO = ["gradio>=6.20"]
# mkdocs 2 has no hooks, and no plugins.
DOCS = ["mkdocs>=1.6.1,<2", "mkdocs-material>=9.8", "mkdocstrings>=1.0.8", "mkdocstrings-python>=2.0.11"]
ONNX = ["onnx>=1.23", "onnxruntime>=1.31", "onnxscript>=0.7"]
# It is built while it is installed, which is only known to work on Linux; its tests are skipped elsewhere.
DEEPSPEED = ["deepspeed>=0.19.8; sys_platform == 'linux'"]
EXTRAS = {
    "deepspeed": DEEPSPEED,
    "demo": DEMO,
    "docs": DOCS,
    "onnx": ONNX,
    "test": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "scikit-learn>=1.5",
        "playwright>=1.50",
        *DEEPSPEED,
        *DEMO,
        *DOCS,
        *ONNX,
    ],
    # A newer one finds faults in what an older one passed, and nothing would have changed here.
    "quality": ["ruff>=0.17.5,<0.18", "mypy>=2.4.1,<2.5", "types-PyYAML"],
}
EXTRAS["dev"] = sorted({package for packages in EXTRAS.values() for package in packages})

setup(
    name="headshare_hf",
    version="0.1.0.dev0",
    description="Knowledge distillation for vision models through a shared classifier, the Hugging Face way",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={
        "headshare_hf": ["py.typed"],
        "headshare_hf.evaluation": ["metrics/*/*.py"],
        "headshare_hf.hub": ["*.md"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
    zip_safe=False,
)
