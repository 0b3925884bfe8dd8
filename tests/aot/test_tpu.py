"""A TPU's compiler makes of the step what it should: the stem and one block, only compiled.

Minutes long, so no part of the whole suite: `pip install -e ".[aot]"`, then `pytest tests/aot`.
"""

import pytest

pytest.importorskip("libtpu", reason="no libtpu: pip install -e '.[aot]'")

from benchmarks.compiled import Program, compile_step
from benchmarks.hlo import collectives, convolutions

NORMS = 5  # the stem's, the block's three, the shortcut's
PARAMETERS = 342_248  # of stem, block and classifier
CHIP_MEMORY = 16e9


@pytest.fixture(scope="module", params=["1 v5e", "8 v5e"])
def devices(request):
    return request.param


@pytest.fixture(scope="module")
def step(devices):
    return compile_step(Program(devices, fields=(("stage_sizes", (1,)),)))


@pytest.fixture(scope="module")
def found(step):
    return list(convolutions(step.as_text()))


def test_every_forward_convolution_adds_up_the_moments_of_its_batch_norm(found):
    assert [each.has_moments for each in found if each.is_forward] == [True] * NORMS


def test_convolutions_read_bfloat16_and_write_no_map_in_float32(found):
    assert {dtype for each in found for dtype in each.operands} == {"bf16"}
    for each in found:
        for dtype, sizes in each.outputs:
            assert dtype != "f32" or len(sizes) < 4 or sizes[0] < 256


def test_chips_send_each_other_sums_alone_and_those_in_float32(devices, step):
    sums = collectives(step.as_text())
    if devices == "1 v5e":
        assert not sums
        return
    assert {kind for kind, _, _ in sums} == {"all-reduce"}
    # Two a BatchNorm layer, forward and backward; the gradients; the metrics.
    assert len(sums) <= 2 * NORMS + 4
    gradients = sum(size for _, dtype, size in sums if dtype == "f32")
    assert 4 * PARAMETERS <= gradients < 4 * PARAMETERS * 1.1
    assert sum(size for _, _, size in sums) - gradients < 1000


def test_peak_memory_is_below_the_chips(step):
    assert step.memory_analysis().peak_memory_in_bytes < CHIP_MEMORY
