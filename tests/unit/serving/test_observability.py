"""Trace contexts: which headers are read, by the rules of their standards, and which are ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litelambda_serving.observability import trace_context

# The example of W3C's recommendation, and AWS's of its tracing header.
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
XRAY_FIELDS = {"trace_id": "5759e988bd862e3fe1be46a994272793", "span_id": "53995c3f42cd8ad8", "trace_flags": "01"}


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-03", "01"),  # further flags mean nothing yet
        (f"00-{TRACE}-{SPAN}-fe", "00"),
        (f"cc-{TRACE}-{SPAN}-01", "01"),  # a later version, read as far as this one knows it
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", "01"),
    ],
)
def test_a_valid_traceparent_is_the_trace(header: str, flags: str) -> None:
    """A header of version 00, or of a later one that begins alike, names trace and span, with X-Ray's or without."""
    wanted = {"trace_id": TRACE, "span_id": SPAN, "trace_flags": flags}
    assert trace_context(header, "") == trace_context(header, XRAY) == wanted


@pytest.mark.parametrize(
    "header",
    [
        *("", "-", "00", "00-", "0" * 55, f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-", f"00-{TRACE}-{SPAN}-1"),
        *(f"00-{TRACE}-{SPAN}-01-", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-01.", f"00-{TRACE}-{SPAN}-0x"),
        *(f"cc-{TRACE}-{SPAN}-01.more", f"cc-{TRACE}-{SPAN}-01more", f"ff-{TRACE}-{SPAN}-01", f"0-{TRACE}-{SPAN}-01"),
        *(f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN.upper()}-01", f"0A-{TRACE}-{SPAN}-01"),
        *(f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00_{TRACE}-{SPAN}-01", f"00-{TRACE}_{SPAN}-01"),
        *(f"00-{TRACE}-{SPAN}_01", f"00-{TRACE[1:]}-{SPAN}0-01", f" 00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01 "),
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_is_ignored(header: str) -> None:
    """What the recommendation calls invalid, two headers joined by a comma included, is as if it were absent."""
    assert trace_context(header, "") == {}
    assert trace_context(header, XRAY) == XRAY_FIELDS


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (XRAY, XRAY_FIELDS),
        (XRAY.replace("Sampled=1", "Sampled=0"), {**XRAY_FIELDS, "trace_flags": "00"}),
        (f"Self=1-67891234-12456789abcdef012345678;{XRAY};Lineage=25:3d;CalledFrom=app", XRAY_FIELDS),
        (XRAY.replace("Parent=53995c3f42cd8ad8;", ""), {k: v for k, v in XRAY_FIELDS.items() if k != "span_id"}),
        (XRAY.replace("Root=1", "Root=2"), {}),
        (XRAY.replace("bd862e", "bd862"), {}),
        ("Sampled=1", {}),
        ("Root=1-5759e988;Parent=;Sampled=?", {}),
        (";;=;Root", {}),
    ],
)
def test_lambdas_tracing_header_is_the_trace_without_another(header: str, wanted: dict[str, str]) -> None:
    """X-Ray's identifiers are those of W3C: the root without its version and hyphens is the trace."""
    assert trace_context("", header) == wanted


@given(st.text(max_size=60), st.text(max_size=100))
def test_no_header_is_too_odd(traceparent: str, xray: str) -> None:
    """Any text is read or ignored, and what is read has the form of identifiers."""
    for name, value in trace_context(traceparent, xray).items():
        assert len(value) == {"trace_id": 32, "span_id": 16, "trace_flags": 2}[name]
        assert int(value, 16) >= 0
