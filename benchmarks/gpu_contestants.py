"""Who trains on the GPU, at what, and what is wanted: the tables of the contest."""

from benchmarks.worker import Contestant

OURS = "ours"
OUR_MODULE = "benchmarks.our_resnet"
TORCH_MODULE = "benchmarks.torch_compiled"

CONTESTANTS = {
    OURS: Contestant(OUR_MODULE, note="this project's training step"),
    "torch": Contestant(TORCH_MODULE, note="PyTorch, channels_last, autocast, torch.compile"),
    "flax": Contestant(
        "benchmarks.flax_resnet", note="stock flax.linen layers, the plainest training step"
    ),
    "torch-graphs": Contestant(
        TORCH_MODULE,
        {"mode": "reduce-overhead"},
        note="torch.compile with CUDA graphs (reduce-overhead)",
    ),
    "torch-autotune": Contestant(
        TORCH_MODULE, {"mode": "max-autotune"}, note="torch.compile, max-autotune"
    ),
    "torch-eager": Contestant(TORCH_MODULE, {"mode": None}, note="PyTorch without torch.compile"),
}
DEFAULT = (OURS, "torch", "flax")

# Network -> batches, the one that matters most first.
BATCHES = {
    "resnet50": (256, 512, 128),
    "resnet18": (512,),
    "resnet101": (128,),
    "resnet152": (128,),
}


def _formulation(name: str, note: str) -> Contestant:
    return Contestant(OUR_MODULE, {"variant": name}, note=note)


def _flags(flags: str, note: str) -> Contestant:
    return Contestant(OUR_MODULE, xla_flags=flags, note=note)


# In the order of their promise; docs/gpu_notes.md has the predictions.
VARIANTS = {
    "matmul": _formulation("matmul", "1x1 convolutions as matmuls"),
    "recompute": _formulation(
        "recompute", "normalised and rectified maps computed anew in the backward pass"
    ),
    "conv-fusion": _flags(
        "--xla_gpu_experimental_enable_conv_fusion=true", "convolutions as fusions"
    ),
    "multi-output": _flags(
        "--xla_gpu_unsupported_enable_triton_multi_output_fusion=true",
        "Triton matmuls with several outputs",
    ),
    "space-to-depth": _formulation(
        "space_to_depth", "the 7x7 stem as 4x4 over 2x2 pixels side by side"
    ),
    "four-channels": _formulation("four_channels", "images padded to 4 channels on the host"),
    "latency-hiding": _flags(
        "--xla_gpu_enable_latency_hiding_scheduler=true", "latency-hiding scheduler"
    ),
    "no-command-buffers": _flags(
        "--xla_gpu_enable_command_buffer=", "no command buffers (CUDA graphs)"
    ),
    "all-command-buffers": _flags(
        "--xla_gpu_enable_command_buffer=+CUDNN,+CONVOLUTION,+CUSTOM_CALL"
        " --xla_gpu_graph_min_graph_size=1",
        "convolutions and library calls in command buffers too",
    ),
    "no-autotuning": _flags("--xla_gpu_autotune_level=0", "no autotuning"),
    "exhaustive-tiling": _flags(
        "--xla_gpu_exhaustive_tiling_search=true", "all tilings of Triton matmuls tried"
    ),
    "no-triton": _flags("--xla_gpu_enable_triton_gemm=false", "matmuls by cuBLAS alone"),
    "cudnn-matmuls": _flags(
        "--xla_gpu_cudnn_gemm_fusion_level=2", "cuDNN among the matmuls' candidates"
    ),
}
