"""Each alarm of Prometheus leads to what it means, and has a test in which it fires and one in which it does not yet."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from daemon import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
ALARMS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
TESTS = [
    one
    for test in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    for one in test["alert_rule_test"]
]
RUNBOOK = re.compile(r"https://wafermon\.example/([a-z/-]+)/#([a-z0-9-]+)")


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_leads_to_what_it_means(name: str) -> None:
    found = RUNBOOK.fullmatch(ALARMS[name]["annotations"].get("runbook_url", ""))
    assert found, f"{name} needs runbook_url: https://wafermon.example/operations/#{name.lower()}"
    page = (ROOT / "docs" / f"{found[1]}.md").read_text()
    assert f'<a id="{found[2]}"></a>`{name}`' in page, f'docs/{found[1]}.md has no <a id="{found[2]}"></a>`{name}`'


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_fires_in_a_test_and_is_quiet_before(name: str) -> None:
    fires = [test for test in TESTS if test["alertname"] == name and test.get("exp_alerts")]
    assert fires, f"deploy/prometheus/alerts_test.yml has no test in which {name} fires"
    if "for" in ALARMS[name] or "increase" in ALARMS[name]["expr"]:
        assert [test for test in TESTS if test["alertname"] == name and not test.get("exp_alerts")]
