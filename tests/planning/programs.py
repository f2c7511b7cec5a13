# ruff: noqa: E501
"""A compiled program in short."""

from __future__ import annotations

# What a program for a TPU looks like where it matters: a loop of 12, a gather that runs beside two
# fusions, a reduce-scatter spelled as a fusion, and a kernel whose metadata has lines of its own.
TPU = """\
HloModule jit_step, is_scheduled=true

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: bf16[64,32]) -> bf16[16,32] {
  %p = bf16[64,32]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.9 = bf16[64,32]{1,0} all-reduce(%p), channel_id=7, replica_groups=[2,4]<=[2,4]T(1,0), to_apply=%add.1
  ROOT %cut = bf16[16,32]{1,0} dynamic-slice(%all-reduce.9)
}

%start (p.1: bf16[8,32]) -> bf16[32,32] {
  %p.1 = bf16[8,32]{1,0} parameter(0)
  %all-gather.1 = bf16[32,32]{1,0} all-gather(%p.1), channel_id=3, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, metadata={op_name="jit(step)/h/weights"}
  ROOT %begin = bf16[32,32]{1,0} custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%beside (p.2: bf16[8,32]) -> bf16[32,32] {
  %p.2 = bf16[8,32]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[32,32]{1,0} all-gather(%p.2), channel_id=3, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}
}

%body (state: (s32[], bf16[8,32])) -> (s32[], bf16[8,32]) {
  %state = (s32[], bf16[8,32]) parameter(0)
  %async-collective-start = bf16[32,32]{1,0} fusion(%state), kind=kCustom, calls=%start, backend_config={"window_config":{"estimated_cycles":"100"}}
  %work = bf16[32,32]{1,0} fusion(%state), kind=kOutput, calls=%beside, backend_config={"window_config":{"estimated_cycles":"50"}}
  %kernel = bf16[8,32]{1,0} custom-call(%work), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/splash_fwd"}, backend_config={"text": "module {
}}
  more"}
  %scatter = bf16[16,32]{1,0} fusion(%work), kind=kCustom, calls=%all-reduce-scatter.1, backend_config={"window_config":{"estimated_cycles":"1152921504606846975"}}
  ROOT %next = (s32[], bf16[8,32]) tuple(%state)
}

%condition (state.1: (s32[], bf16[8,32])) -> pred[] {
  %state.1 = (s32[], bf16[8,32]) parameter(0)
  %trips = s32[] constant(12)
  ROOT %less = pred[] compare(%state.1, %trips), direction=LT
}

ENTRY %main (x: bf16[8,32]) -> f32[] {
  %x = bf16[8,32]{1,0} parameter(0)
  %loop = (s32[], bf16[8,32]) while(%x), condition=%condition, body=%body
  %swap = (f32[4,2]{1,0}, f32[4,2]{1,0}, u32[]) collective-permute-start(%x), channel_id=5, source_target_pairs={{0,4},{4,0},{1,1}}
  ROOT %total = f32[] all-reduce(%loop), channel_id=9, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add.1, backend_config={"estimated_cycles":"7"}
}
"""
TPU_AXES = {"data": 2, "fsdp": 4}
