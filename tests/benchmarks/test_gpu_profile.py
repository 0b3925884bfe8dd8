"""The device time of a training step is told apart by kind of work."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import gpu_profile
from benchmarks.gpu_profile import Event

PROGRAM = """HloModule jit_step, is_scheduled=true

%region_0.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.9 = f32[] add(%a, %b)
}

%fused_statistics (p0: bf16[8,4,4,16]) -> f32[16] {
  %p0 = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  %wide = f32[8,4,4,16]{3,2,1,0} convert(%p0)
  ROOT %sum = f32[16]{0} reduce(%wide, %zero), dimensions={0,1,2}, to_apply=%region_0.1
}

%fused_relu (p1: bf16[8,4,4,16]) -> bf16[8,4,4,16] {
  %p1 = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  ROOT %max = bf16[8,4,4,16]{3,2,1,0} maximum(%p1, %p1)
}

%triton_gemm (p2: bf16[128,16], p3: bf16[16,32]) -> bf16[128,32] {
  %p2 = bf16[128,16]{1,0} parameter(0)
  %p3 = bf16[16,32]{1,0} parameter(1)
  ROOT %dot.1 = bf16[128,32]{1,0} dot(%p2, %p3), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_transpose (p4: bf16[16,32]) -> bf16[32,16] {
  %p4 = bf16[16,32]{1,0} parameter(0)
  ROOT %t = bf16[32,16]{1,0} transpose(%p4), dimensions={1,0}
}

ENTRY %main.3 (x: bf16[8,4,4,16]) -> f32[16] {
  %x = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  %cudnn-conv.2 = (bf16[8,4,4,16]{3,2,1,0}, u8[0]{0}) custom-call(%x, %x), custom_call_target="__cudnn$convForward", \
metadata={op_name="jit(step)/jvp(ResNet)/conv1/conv2d"}
  %input_reduce_fusion.4 = f32[16]{0} fusion(%x), kind=kInput, calls=%fused_statistics, \
metadata={op_name="jit(step)/jvp(ResNet)/bn1/reduce_sum"}
  %loop_maximum_fusion = bf16[8,4,4,16]{3,2,1,0} fusion(%x), kind=kLoop, calls=%fused_relu, \
metadata={op_name="jit(step)/jvp(ResNet)/max"}
  %gemm_fusion_dot.7 = bf16[128,32]{1,0} fusion(%x, %x), kind=kCustom, calls=%triton_gemm, \
metadata={op_name="jit(step)/jvp(ResNet)/fc/dot_general"}
  %loop_transpose_fusion = bf16[32,16]{1,0} fusion(%x), kind=kLoop, calls=%fused_transpose, \
metadata={op_name="jit(step)/transpose(jvp(ResNet))/fc/transpose"}
  ROOT %loop_multiply_fusion.3 = f32[16]{0} fusion(%x), kind=kLoop, calls=%fused_relu, \
metadata={op_name="jit(step)/mul"}
}
"""


@pytest.mark.parametrize(
    ("instruction", "category"),
    [
        ("cudnn-conv.2", gpu_profile.CONVOLUTIONS),
        ("gemm_fusion_dot.7", gpu_profile.CONVOLUTIONS),
        ("input_reduce_fusion.4", gpu_profile.REDUCTIONS),
        ("loop_maximum_fusion", gpu_profile.ELEMENTWISE),
        ("loop_transpose_fusion", gpu_profile.COPIES),
        ("loop_multiply_fusion.3", gpu_profile.REST),
    ],
)
def test_a_kernel_is_classified_by_its_instruction(instruction, category):
    program = gpu_profile.read_program(PROGRAM)
    assert gpu_profile.classify(Event("some_kernel", instruction, 0, 1), program) == category


@pytest.mark.parametrize(
    ("kernel", "category"),
    [
        ("sm90_xmma_wgrad_implicit_gemm_bf16", gpu_profile.CONVOLUTIONS),
        ("MemcpyD2D", gpu_profile.COPIES),
        ("input_reduce_fusion_4", gpu_profile.REDUCTIONS),
        ("mystery", gpu_profile.UNKNOWN),
    ],
)
def test_a_kernel_of_no_named_instruction_is_classified_by_its_own_name(kernel, category):
    program = gpu_profile.read_program(PROGRAM)
    assert gpu_profile.classify(Event(kernel, "", 0, 1), program) == category


def test_times_are_summed_by_category_and_divided_by_the_steps():
    events = [
        Event("conv", "cudnn-conv.2", 10.0, 2.0),
        Event("relu", "loop_maximum_fusion", 12.0, 1.0),
        Event("conv", "cudnn-conv.2", 14.0, 3.0),
        Event("relu", "loop_maximum_fusion", 17.0, 1.0),
    ]
    found = gpu_profile.break_down(events, gpu_profile.read_program(PROGRAM), steps=2)
    assert found.categories[gpu_profile.CONVOLUTIONS] == 2.5
    assert found.categories[gpu_profile.ELEMENTWISE] == 1.0
    assert sum(found.categories.values()) == 3.5
    assert found.kernels[0] == ("cudnn-conv.2", gpu_profile.CONVOLUTIONS, 2.5)
    assert found.span == 4.0


def test_a_trace_of_this_machine_is_read(tmp_path):
    @jax.jit
    def step(x):
        return jnp.sin(x @ x)

    x = jnp.ones((400, 400))
    program = gpu_profile.read_program(step.lower(x).compile().as_text())
    step(x).block_until_ready()
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(3):
            step(x).block_until_ready()
    events = gpu_profile.read_trace(tmp_path, "jit_step")
    found = gpu_profile.break_down(events, program, steps=3)
    assert found.categories[gpu_profile.CONVOLUTIONS] > 0
    assert found.categories[gpu_profile.UNKNOWN] == 0
    assert found.span > 0
    assert gpu_profile.read_trace(tmp_path, "jit_other") == []


def test_a_missing_trace_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no trace"):
        gpu_profile.read_trace(tmp_path, "jit_step")
