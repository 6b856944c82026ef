import pytest

from dsvlfs.parts.image_encoder import _is_quick_in_bfloat16


@pytest.mark.parametrize(
    ("cpu", "quick"),
    [
        ({"cpu_name": "AMD EPYC 9R14", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "AMD EPYC 7B13", "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "aarch64", "bf16": True}, False),
    ],
)
def test_bfloat16_is_taken_where_it_is_quick(cpu, quick):
    assert _is_quick_in_bfloat16(cpu) is quick
