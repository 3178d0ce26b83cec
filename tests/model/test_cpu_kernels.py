import torch
from torch import nn
from torch.nn import functional

from lrm.model.cpu_kernels import Dropout, RmsNorm, causal_attention


def test_attention_in_bfloat16_is_that_in_float32_up_to_rounding():
    generator = torch.Generator().manual_seed(0)
    q_GHTZ = torch.randn(3, 4, 7, 8, generator=generator)
    k_GJTZ, v_GJTZ = (torch.randn(3, 2, 7, 8, generator=generator) for _ in range(2))
    plain = functional.scaled_dot_product_attention(q_GHTZ, k_GJTZ, v_GJTZ, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(causal_attention(q_GHTZ, k_GJTZ, v_GJTZ), plain)
    short = causal_attention(q_GHTZ.bfloat16(), k_GJTZ.bfloat16(), v_GJTZ.bfloat16())
    torch.testing.assert_close(short.float(), plain, atol=0.05, rtol=0.05)


def test_the_norm_and_its_gradients_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    x_ND, grad_ND = (torch.randn(9, 6, generator=generator) for _ in range(2))
    ours, theirs = RmsNorm(6), nn.RMSNorm(6)
    theirs.load_state_dict(ours.state_dict())
    found = []
    for norm in (ours, theirs):
        x = x_ND.clone().requires_grad_()
        y = norm(x)
        y.backward(grad_ND)
        found.append((y, x.grad, norm.weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_keeps_the_mean_and_does_nothing_when_scoring():
    torch.manual_seed(0)
    dropout, x = Dropout(0.25), torch.ones(1000, 64)
    dropped = dropout(x)
    assert abs(dropped.mean().item() - 1.0) < 0.02
    assert abs((dropped == 0).float().mean().item() - 0.25) < 0.01
    assert dropout.eval()(x) is x
