"""Packaging of fastreid_clip3d.

fast-reid and PyTorch3D are left out of `install_requires` on purpose: fast-reid's own requirement of torch 1.13 would
replace the torch that is installed, and PyTorch3D has no wheel under its own name. The README says how both are had.
"""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="fastreid_clip3d",
    version="0.1.0",
    description="CLIP3DReID (CVPR 2024) as a plug-in to fast-reid",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["fastreid_clip3d", "fastreid_clip3d.*"]),
    package_data={"fastreid_clip3d": ["**/assets/*", "**/assets/**/*"]},
    python_requires=">=3.10,<3.13",
    # Any torch is accepted: a plug-in must not replace the one a user has. Tried: torch 2.11.0, torchvision 0.26.0.
    install_requires=[
        "torch",
        "torchvision",
        "numpy>=2,<3",
        "scipy>=1.15,<2",
        "open_clip_torch>=3.3,<4",
        "timm>=1.0.31,<2",
        "smplx>=0.1.28,<0.2",
        "yacs>=0.1.8,<0.2",
        "tensorboard>=2.21,<3",
        "PyYAML>=6,<7",
        "Pillow>=12",
        "opencv-python-headless>=4.11",
        "scikit-learn>=1.7,<2",
        "matplotlib>=3.10,<4",
        "pandas>=2.3,<4",
        "faiss-cpu>=1.13,<2",
        "iopath>=0.1.9,<0.2",
        "tabulate>=0.9,<1",
        "termcolor>=3,<4",
        "tqdm>=4.67,<5",
        "rich>=14",
        "trimesh>=4,<6",
    ],
    extras_require={
        # A prebuilt PyTorch3D for torch 2.11 and 2.12, CUDA 13 builds; any other build that imports will do.
        "pytorch3d": ["easypytorch3d==0.7.9.post1"],
        # Only for tools/build_body_model.py.
        "build-body": ["anny==0.6.2", "fast-simplification==0.2.0"],
        # For tools/export.py and for using .onnx files.
        "export": ["onnx>=1.23,<2", "onnxruntime>=1.23,<2"],
        # For features and results by query as .parquet.
        "parquet": ["pyarrow>=22"],
        "test": [
            "pytest>=9,<10",
            "pytest-xdist>=3.8,<4",
            "POT>=0.9.6,<0.10",
            "onnx>=1.23,<2",
            "onnxruntime>=1.23,<2",
            "pyarrow>=22",
        ],
    },
)
