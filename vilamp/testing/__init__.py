"""The conformance kit: whether a selector, a merger or a video decoder keeps the rules of :mod:`vilamp.interfaces`.

In the tests of a plugin, with or without pytest::

    from vilamp.testing import check_decoder, check_merger, check_selector

    def test_contract():
        check_selector(MySelector)
        check_merger(lambda dim, query_dim: MyMerger(heads=2, dim=dim, query_dim=query_dim))
        check_decoder(MyDecoder)

Each rule as a test of its own::

    @pytest.mark.parametrize("check", selector_checks(), ids=str)
    def test_contract(check):
        check(MySelector)

A broken rule is an AssertionError that names the rule and what was seen.  The kit draws from generators of its own, and
leaves the global random states as they were.  Where there is a CUDA device, the rules are also checked on it.
"""

from __future__ import annotations

from vilamp.testing.decoders import check_decoder, decoder_checks
from vilamp.testing.kit import Check
from vilamp.testing.mergers import check_merger, merger_checks
from vilamp.testing.selectors import check_selector, selector_checks

__all__ = [
    "Check",
    "check_decoder",
    "check_merger",
    "check_selector",
    "decoder_checks",
    "merger_checks",
    "selector_checks",
]
