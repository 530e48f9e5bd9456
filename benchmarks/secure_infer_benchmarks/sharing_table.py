"""The report of `sharing` as text: ratios first, then what a query took and what its answers are worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def table(report: dict[str, Any]) -> str:
    """Lines of text, for a report of `sharing.measure`."""
    machine = report.get("machine")
    lines = [] if machine is None else [_machine(machine, report["load_average_after"])]
    lines += [f"{report['links']}; threads: {report['threads']}", "", *_latency(report), "", *_work(report), ""]
    lines += [*_stock(report), "", *_delays(report["delays"])]
    return "\n".join(lines) + "\n"


def _machine(machine: dict[str, Any], load_after: dict[str, float]) -> str:
    after = ", ".join(f"{load:.1f} after {phase}" for phase, load in load_after.items())
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cores']} cores, {machine['processor']}, {machine['system']}, Python {machine['python']}, {versions}; "
        f"load average {machine['load_average_before']:.1f} before, {after}"
    )


def _measured(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, row) for name, row in report["cases"].items() if "reason" not in row)


def _latency(report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{'':<27} {'stock / ours':>12} {'ours / plain':>12} {'client ms':>9} {'p90':>7} {'min':>7} {'rounds':>6} {'f':>3} "
        f"{'bound':>7} {'max err':>7} {'failure':>7} {'agree':>8}"
    )
    for name, row in report["cases"].items():
        if "reason" in row:
            yield f"{name:<27} no figures: {row['reason']}"
            continue
        stock = f"{1 / row['ratio_to_stock']:.1f} x" if "ratio_to_stock" in row else "–"
        error = "–" if row["max_logit_error"] is None else f"{row['max_logit_error']:.1e}"
        agree = row["agreement_beyond_twice_the_bound"]
        ms = row["client_ms"]
        yield (
            f"{name:<27} {stock:>12} {row['ratio_to_plaintext']:>10,.0f} x {ms['median']:>9.2f} {ms['p90']:>7.2f} "
            f"{ms['min']:>7.2f} {row['rounds']:>6} {row['fraction_bits']:>3} {row['error_bound']:>7.1e} {error:>7} "
            f"{row['failure_probability']:>7.0e} {'–' if agree is None else f'{agree:.1%}':>8}"
        )
    yield "stock: CrypTen with its trusted third party. agree: with plaintext, where its margin exceeds twice the bound."


def _work(report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{'':<27} {'split':>7} {'network':>7} {'parties':>7} {'waiting':>7} {'join':>7} (ms)  {'up':>9} {'down':>7} "
        f"{'link':>9} {'dealt':>10} (bytes)  {'retries':>7}"
    )
    for name, row in _measured(report):
        times = " ".join(f"{row[f'{stage}_ms']:>7.2f}" for stage in ("split", "network", "parties", "waiting", "join"))
        yield (
            f"{name:<27} {times}       {row['bytes_up']:>9,} {row['bytes_down']:>7,} {row['link_bytes']:>9,} "
            f"{row['correlation_bytes']:>10,}          {row['retries']:>7}"
        )
    yield "link: sent by each party to the other. dealt: to both. waiting: of parties, for correlations, a lane, agreement."


def _stock(report: dict[str, Any]) -> Iterator[str]:
    """Each figure or reason once, under the first name that it stands beside."""
    told: set[str] = set()
    warnings: set[str] = set()
    for name, rows in report["stock"].items():
        for row in rows:
            if "reason" in row:
                line = f"no figures: {row['reason']}"
            else:
                ms = row["client_ms"]
                line = (
                    f"{ms['median']:.1f} ms (min {ms['min']:.1f}, {row['queries']} queries), logit error "
                    f"{row['max_logit_error']:.1e}, {max(row['rounds'])} rounds, {row['variant']}, {row['version']}"
                )
                warnings.add(f"{row['peer']}: {row['privacy']}")
            if line not in told:
                yield f"{row['peer']}, {name}: {line}"
            told.add(line)
    yield from sorted(warnings)


def _delays(report: dict[str, Any]) -> Iterator[str]:
    title = f"every link {report['round_trip_ms']:g} ms there and back"
    yield (
        f"{title:<36} {'measured / explained':>20} "
        f"{'measured ms':>11} {'explained ms':>12} {'loopback ms':>11} {'rounds':>6}"
    )
    for name, row in report["cases"].items():
        if "reason" in row:
            yield f"{name:<36} no figures: {row['reason']}"
            continue
        yield (
            f"{name:<36} {row['measured_to_explained']:>20.3f} {row['measured_ms']['median']:>11.1f} "
            f"{row['explained_ms']:>12.1f} {row['loopback_ms']['median']:>11.2f} {row['rounds']:>6}"
        )
    yield "explained: loopback + a round trip of the client + half a round trip for START and for each round."
