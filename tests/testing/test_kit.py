"""What the checks of all contracts share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vilamp.testing import Check, kit


def test_what_a_check_raises_names_the_plugin_the_rule_and_what_was_seen() -> None:
    def divide(make: object) -> None:
        raise ZeroDivisionError("by nothing")

    def want(make: object) -> None:
        kit.require(False, "it is blue")

    with pytest.raises(AssertionError, match=r"^Linear breaks the rule red \(It is red\.\) Seen: it is blue$"):
        Check("red", "It is red.", want)(nn.Linear)
    with pytest.raises(AssertionError, match=r"Linear .* Seen: ZeroDivisionError: by nothing$") as caught:
        Check("red", "It is red.", divide)(nn.Linear(1, 1))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_check_is_shown_by_its_name() -> None:
    assert str(Check("red", "It is red.", lambda make: None)) == "red"


def test_the_widths_that_a_constructor_names_are_passed() -> None:
    def make(dim: int, other: int = 3) -> nn.Module:
        return nn.Linear(dim, other)

    built = kit.factory(make, dim=5, query_dim=7)()
    assert (built.in_features, built.out_features) == (5, 3)


@pytest.mark.parametrize("got", [torch.tensor([1.0, 2.1]), torch.tensor([1.0, torch.nan]), torch.tensor([1.0])])
def test_what_is_not_close_is_told(got) -> None:
    with pytest.raises(AssertionError, match=r"the sum (differs by|has the shape)"):
        kit.require_close("the sum", got, torch.tensor([1.0, 2.0]))


def test_what_is_close_passes() -> None:
    kit.require_close("the sum", torch.tensor([1.0, 2.0001]), torch.tensor([1.0, 2.0]))
    kit.require_close("nothing", torch.zeros(0), torch.zeros(0))
    with pytest.raises(AssertionError, match="differs"):
        kit.require_close("the sum", torch.tensor([1e-9]), torch.zeros(1))


def test_a_tensor_above_the_limit_is_told_and_a_view_is_not() -> None:
    numbers = torch.arange(10)
    with kit.NoTensorAbove(20):
        assert numbers[:, None].expand(10, 10).shape == (10, 10)
        assert (numbers + 1).sum() == 55
    with kit.NoTensorAbove(20), pytest.raises(AssertionError, match=r"\[10, 10\] of 100 numbers"):
        numbers[:, None] + numbers


def test_a_dead_parameter_is_told() -> None:
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    kit.require_live_gradients(layer)
    layer.bias.grad = None
    with pytest.raises(AssertionError, match="no gradient reaches bias"):
        kit.require_live_gradients(layer)
    layer.bias.requires_grad_(False)
    kit.require_live_gradients(layer)
    layer.weight.grad = torch.tensor([[1.0, torch.inf], [1.0, 1.0]])
    with pytest.raises(AssertionError, match="the gradient of weight is not finite"):
        kit.require_live_gradients(layer)


def test_scrambling_leaves_what_is_not_saved() -> None:
    module = nn.BatchNorm1d(3)
    module.register_buffer("positions", torch.arange(3.0), persistent=False)
    kit.scrambled(module)
    assert module.positions.tolist() == [0, 1, 2]
    assert module.weight.tolist() == [0.5] * 3
    assert module.running_mean.tolist() == [1.0] * 3
    assert module.num_batches_tracked == 0
