"""Makes distillation_golden.json again: the loss and its gradient as PyTorch computes them.

pip install torch
python tests/training/make_distillation_golden.py
"""

import json
from pathlib import Path

import torch
from torch.nn import functional

ROWS, CLASSES = 6, 5
CASES = [{"temperature": 1.0, "weight": 1.0}, {"temperature": 4.0, "weight": 0.3}]


def case(temperature, weight):
    logits = (3 * torch.randn(ROWS, CLASSES, dtype=torch.float64)).requires_grad_()
    taught = 3 * torch.randn(ROWS, CLASSES, dtype=torch.float64)
    labels = torch.randint(CLASSES, (ROWS,))
    apart = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=-1),
        functional.log_softmax(taught / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    loss = (1 - weight) * functional.cross_entropy(logits, labels)
    loss = loss + weight * temperature**2 * apart
    loss.backward()
    return {
        "temperature": temperature,
        "weight": weight,
        "logits": logits.tolist(),
        "taught": taught.tolist(),
        "labels": labels.tolist(),
        "loss": loss.item(),
        "gradient": logits.grad.tolist(),
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    golden = [case(**fields) for fields in CASES]
    path = Path(__file__).with_name("distillation_golden.json")
    path.write_text("[\n" + ",\n".join(map(json.dumps, golden)) + "\n]\n")
