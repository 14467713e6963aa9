"""Package `barkour`: pip-installable, and an ament_python package for colcon (see package.xml)."""

from glob import glob

from setuptools import find_packages, setup

NAME = "barkour"
KEPT = ("onnx", "response.json", "paces.yaml")
"""Endings of what a policy comes with."""
EXTRAS = {
    # training and export
    "train": [
        "jax==0.9.2",
        "brax==0.14.2",
        "mujoco-mjx==3.17.0",
        "onnx>=1.17",
        "safetensors>=0.5",
        "tensorboardX>=2.6",
        "gymnasium>=1.2.3",
    ],
    # an environment for its runners; the next major version changes what they ask of one
    "rsl": ["rsl-rl-lib>=5.5,<6", "torch==2.13.0"],
    # distillation; torch's exact pin is the one with a CPU build
    "distill": [
        "torch==2.13.0",
        "accelerate>=1.2",
        "safetensors>=0.5",
        "onnx>=1.17",
        "tensorboardX>=2.6",
        "mcap-ros2-support>=0.5",  # logs of robots, whoever wrote them
    ],
    # language-model distillation
    "lm": [
        "torch==2.13.0",
        "transformers>=5",
        "tokenizers>=0.22",
        "accelerate>=1.2",
        "safetensors>=0.5",
        "tensorboardX>=2.6",
        "openai>=1",
        "jinja2>=3",  # chat templates
        "pyarrow>=15",  # data in Parquet
        "pillow>=10",  # images of models that see
        "bm25s>=0.2.13",  # knowledge that is found by its words; needs numpy alone
    ],
    # LoRA: what the field's models are adapted with, and merged by
    "peft": ["peft>=0.14"],
    # teachers in 8 and 4 bits
    "quantized": ["bitsandbytes>=0.48"],
    # tasks that students are measured on beside their teachers: the field's own harness
    "lm-eval": ["lm-eval>=0.4.9"],
    # seeds of experiments as jobs of a Slurm cluster, in its own queue
    "cluster": ["submitit>=1.5"],
    # data by name, and folders that it saved: what the field publishes its data sets with
    "data": ["datasets>=3"],
    # rclpy without a ROS installation; on robots it comes from ROS itself
    "ros": [
        "ros-rclpy[fastrtps]==9.1.2",
        *(f"ros-{m}-msgs==5.5.1" for m in ("sensor", "nav", "geometry", "trajectory", "diagnostic")),
        "ros-std-srvs==5.5.1",
    ],
    # DDS for robots that speak Unitree's messages
    "unitree": ["cyclonedds>=11"],
    # a second physics engine, to see whether a policy has learned more than its simulator
    "sim2sim": ["drake>=1.51,<1.52"],
    # what `barkour bench distill` and a test compare the losses and the loop with
    "bench": ["trl>=1.16"],
    # video and the live view
    "viz": ["imageio-ffmpeg>=0.5", "mjviser>=0.0.14"],
    # pyright's nodejs extra brings Node as a wheel, so that nothing is downloaded outside the package index
    "dev": [
        "setuptools>=69",
        "packaging",
        "pytest>=8",
        # two processes: one would take longer than CI may
        "pytest-xdist>=3.6",
        "hypothesis>=6",
        # what power calculations and p-values are compared with
        "scipy>=1.11",
        # opens the live view in a headless Chromium, where there is one
        "playwright>=1.49",
        # the published form of evaluations is a JSON Schema, which tests validate against
        "jsonschema>=4.20",
        "ruff>=0.9",
        "import-linter>=2",
        "pyright[nodejs]>=1.1.390",
        "codespell>=2.4",
        # the docs site; a test builds it, so that no link breaks
        "mkdocs>=1.6,<2",
        "mkdocs-material>=9.6",
    ],
}

setup(
    name=NAME,
    version="0.2.0",
    description="An open agility stack for quadrupeds around the Barkour benchmark",
    license="Apache-2.0",
    python_requires=">=3.11",
    py_modules=["barkour"],
    packages=find_packages(include=["sim*", "policies*", "distill*", "robot*"]),
    package_data={
        "sim": ["robots/*/*.xml", "course/shipped/*.yaml"],
        "policies": ["navigation/shipped/*.json", "evaluation/*.json", "evaluation/page/*"],
        "distill": ["methods/*/measured.json"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        # where `ros2 run` looks: files of their own, as console scripts sent there (setup.cfg) would leave pip's bin/
        (f"lib/{NAME}", sorted(glob("resource/bin/*"))),
        (f"share/{NAME}/models", [file for end in KEPT for file in glob(f"models/*.{end}")]),
        *(
            (f"share/{NAME}/{robot}", [file for end in KEPT for file in glob(f"{robot}/*.{end}")])
            for robot in glob("models/*")
            if glob(f"{robot}/*.onnx")
        ),
        # parameters that another training begins with
        *(
            (f"share/{NAME}/{skill}", glob(f"{skill}/*"))
            for skill in glob("models/*") + glob("models/*/*")
            if glob(f"{skill}/*.safetensors")
        ),
        (f"share/{NAME}/launch", [file for end in ("py", "yaml", "xml", "json") for file in glob(f"launch/*.{end}")]),
    ],
    install_requires=[
        "numpy>=1.26",
        "onnxruntime>=1.19",
        "mujoco==3.17.0",
        "pyyaml>=6",
        "tyro>=0.9.14",
        "rich>=13",
        "matplotlib>=3.8",
        # the planner's matrices are small: two threads take twice its processor time
        "threadpoolctl>=3.1",
        # a folder that is written is locked, whatever the system
        "filelock>=3.13",
        # recordings; pure Python, with zstandard and lz4
        "mcap>=1.2.2",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["barkour = barkour:main"]},
)
