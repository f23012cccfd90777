import dataclasses

import pytest
from qatx import Report, ReportRow

CONV = ReportRow(
    name="stem.0", kind="aten::conv2d", integer=True, reason="", weight_bytes=1728, macs=3_000_000
)
SIGMOID = ReportRow(
    name="[b]head[/b]",
    kind="aten::sigmoid",
    integer=False,
    reason="the operator has no integer form",
    weight_bytes=0,
    macs=1_000_000,
)


def test_totals():
    report = Report((CONV, SIGMOID))
    assert report.macs == 4_000_000
    assert report.integer_share_of_macs == 0.75
    assert report.weight_bytes == 1728


def test_an_empty_report():
    report = Report(())
    assert (report.macs, report.integer_share_of_macs, report.weight_bytes) == (0, 0.0, 0)
    assert "0 of 0 operators" in str(report)


def test_the_table_has_it_all():
    report = Report((CONV, SIGMOID))
    lines = str(report).splitlines()
    (conv,) = (line.split() for line in lines if "stem.0" in line)
    assert conv == ["stem.0", "aten::conv2d", "integer", "1,728", "3,000,000"]
    (sigmoid,) = (line for line in lines if "sigmoid" in line)
    assert sigmoid.split()[:3] == ["[b]head[/b]", "aten::sigmoid", "float"]
    assert sigmoid.endswith("the operator has no integer form")
    assert lines[-1] == (
        "In integers: 1 of 2 operators, 75.0% of 4,000,000 multiply-accumulates. "
        "Integer weights: 1,728 bytes."
    )
    assert report.table() == str(report)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_keeps_to_its_width(width):
    reason = "a long reason " * 20
    report = Report((CONV, dataclasses.replace(SIGMOID, reason=reason)))
    table = report.table(width=width)
    assert max(map(len, table.splitlines())) <= width
    assert table.count("reason") == 20
