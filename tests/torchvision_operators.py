"""Declares the two operators for whose names torchvision asks and which PyTorch's own build for CPUs
lacks; imported before timm.
"""

import contextlib

import torch

# Kept, since the declarations end with it.
LIBRARY = torch.library.Library("torchvision", "DEF")
with contextlib.suppress(RuntimeError):  # a torchvision with its operators has declared them
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
