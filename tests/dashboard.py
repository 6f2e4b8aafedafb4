"""Asks a Prometheus what the dashboard and the rules ask: dashboard.py URL DASHBOARD RULES

Prints "ok - .." or "not ok - .." for each. A query must parse and give a number, at the latest when
SECONDS_MAX have passed, or be among those that are empty on a box that is well and young.
"""

import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

SECONDS_MAX = 40
# What a healthy edge of some seconds does not tell, and why.
EMPTY = {
    "tidegate_ssd_shadow_gain_ratio": "told when the shadow caches have seen an hour",
    "tidegate_ssd_shadow_hit_ratio": "told when the shadow caches have seen an hour",
    "tidegate_ssd_life_seconds": "told when writes have been seen for ten minutes",
}


def main(url, dashboard, rules):
    queries = list(queries_of(json.load(open(dashboard, encoding="utf-8"))))
    deadline = time.monotonic() + SECONDS_MAX
    for title, query in queries:
        report(title, lambda: why_not(url, query), deadline)
    report("there are some seventy queries", lambda: None if len(queries) > 70 else len(queries), 0)
    names = set(api(url, "label/__name__/values"))
    # What rules and descriptions name; what is recorded has colons.
    text = re.sub(r"#.*", "", open(rules, encoding="utf-8").read())
    named = set(re.findall(r"(?<![\w:])(?:tidegate|process)_\w+(?![\w:])", text))
    unknown = [n for n in sorted(named) if not {n, f"{n}_bucket"} & names and n not in EMPTY]
    report("the rules name only metrics that there are", lambda: ", ".join(unknown) or None, 0)
    alerts = api(url, "alerts")["alerts"]
    # What fires, or would if it went on.
    words = [f'{one["labels"]["alertname"]} is {one["state"]}' for one in alerts]
    report("a box that is well raises no alert", lambda: ", ".join(words) or None, 0)
    health = [rule for group in api(url, "rules")["groups"] for rule in group["rules"]]
    ill = [rule["name"] for rule in health if rule["health"] != "ok"]
    report("every rule is evaluated", lambda: ", ".join(ill) or None, 0)
    print("all were asked")


def report(what, why_not, deadline):
    """Prints the verdict; asks again until the deadline."""
    why = why_not()
    while why is not None and time.monotonic() < deadline:
        time.sleep(0.2)
        why = why_not()
    print(f"ok - {what}" if why is None else f"not ok - {what}\n    {why}", flush=True)


def queries_of(dashboard):
    """Each query with a name for it, variables filled in as Grafana would."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            yield f"variable {variable['name']}", filled(selector[1]) + f"  # {selector[2]}"
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}, {target['refId']}", filled(target["expr"])


def filled(query):
    for name, value in [("$__rate_interval", "1m"), ("$instance", ".*"), ("$site", ".*")]:
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def why_not(url, query):
    """None if the query gives a number, or has a reason not to."""
    try:
        result = api(url, "query", query=query)["result"]
    except urllib.error.HTTPError as error:
        return f"{query}: {error.read().decode()}"
    numbers = [float(series["value"][1]) for series in result]
    excused = any(name in query for name in EMPTY)
    if excused:
        return f"{query} is not empty: take it off the list" if numbers else None
    return None if any(not math.isnan(n) for n in numbers) else f"{query}: {numbers or 'nothing'}"


def api(url, what, **parameters):
    """What Prometheus answers."""
    asked = f"{url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)["data"]


main(*sys.argv[1:])
