"""Tampering with the audit log: passes on plain JSON lines, is found on ours.

Adversary: somebody who can write to the log's directory and knows its format, after the fact: removes a query, blames another
caller, adds one, moves them, cuts the log off. The key is elsewhere. The unprotected variants: lines without a chain, and a chain
without signatures, which whoever knows the format can write anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from secure_infer_server.audit import AuditLog, AuditSettings, Event, chain, signing
from secure_infer_server.audit.chain import Chain
from secure_infer_server.audit.signing import Signer, Verifier
from secure_infer_server.audit.verify import Report, verify

Lines = list[bytes]
CALLS = 12


def written(directory: Path, key: Path, **settings: object) -> Path:
    """A log of CALLS calls, with a checkpoint after each."""
    audit = AuditLog(AuditSettings(directory, key, commit=0, checkpoint_entries=1, **settings))  # type: ignore[arg-type]
    for i in range(CALLS):
        audit.record(Event(who=f"caller-{i}", method="Infer", outcome="ok", records=1))
        audit.flush()
    audit.close()
    return directory


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("audit")
    return written(directory / "log", directory / "audit.key")


@pytest.fixture
def log(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "log"))


@pytest.fixture
def known(log: Path, tmp_path: Path) -> Verifier:
    """The public key as the auditor kept it."""
    shutil.copy(log / "audit.pub", tmp_path / "kept.pem")
    return Verifier.of([tmp_path / "kept.pem"])


def lines_of(log: Path) -> Lines:
    return (log / "audit-00000001.jsonl").read_bytes().splitlines()


def put(log: Path, lines: Lines) -> None:
    (log / "audit-00000001.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def at(lines: Lines, caller: int) -> int:
    return next(i for i, line in enumerate(lines) if f'"caller-{caller}"'.encode() in line)


def edited(lines: Lines) -> Lines:
    return [line.replace(b'"caller-5"', b'"caller-X"') for line in lines]


def deleted(lines: Lines) -> Lines:
    return [line for line in lines if b'"caller-5"' not in line]


def reordered(lines: Lines) -> Lines:
    i, j = at(lines, 4), at(lines, 5)
    moved = list(lines)
    moved[i], moved[j] = lines[j], lines[i]
    return moved


def inserted(lines: Lines) -> Lines:
    """One more query of caller 3, as a copy."""
    i = at(lines, 3)
    return [*lines[: i + 1], lines[i], *lines[i + 1 :]]


def cut(lines: Lines) -> Lines:
    """Back to right after an earlier checkpoint, where everything left holds together."""
    return lines[: at(lines, 6)]


TAMPERING = [edited, deleted, reordered, inserted, cut]


def accepted_as_plain_lines(lines: Lines) -> bool:
    """All that can be asked of a log without a chain: every line is a call that says who."""
    return all(json.loads(line).get("who") for line in lines)


def accepted_as_chain(lines: Lines) -> bool:
    """What a chain without signatures can be asked."""
    before = Chain()
    for line in lines:
        entry = chain.read(line)
        if entry is None or not entry.whole or (entry.sequence, entry.previous) != (before.sequence + 1, before.hash):
            return False
        before = Chain(entry.sequence, entry.hash)
    return True


def rechained(lines: Lines) -> Lines:
    """Written anew without the key: every entry gets the sequence, the hash before and the hash that it needs."""
    new, before = [], b"0" * 64
    for sequence, line in enumerate(lines, 1):
        fields = json.loads(line)
        kind = fields["kind"]
        kept = {k: v for k, v in fields.items() if k not in ("sequence", "time", "kind", "previous", "hash")}
        written = Chain(sequence - 1, before.decode()).line(kind, 0.0, kept)
        new.append(written.rstrip(b"\n"))
        before = json.loads(written)["hash"].encode()
    return new


def problems(report: Report) -> str:
    return "; ".join(each["problem"] for each in report.problems)


def test_the_untouched_log_holds(log: Path, known: Verifier) -> None:
    report = verify(log, known)
    assert report.ok, report.problems
    assert report.signed == report.sequence


@pytest.mark.parametrize("tamper", TAMPERING)
def test_plain_lines_take_any_tampering(tamper: Callable[[Lines], Lines], log: Path) -> None:
    plain = [
        json.dumps({"who": fields["who"], "method": fields["method"]}).encode()
        for fields in map(json.loads, lines_of(log))
        if fields["kind"] == "call"
    ]
    tampered = tamper(plain)
    assert tampered != plain
    assert accepted_as_plain_lines(tampered)


@pytest.mark.parametrize(
    ("tamper", "caller", "said"),
    [
        (edited, 5, "was changed"),
        (deleted, 5, "is missing"),
        (reordered, 4, "moved or inserted"),
        (inserted, 3, "moved or inserted"),
    ],
)
def test_our_log_says_which_entry(
    tamper: Callable[[Lines], Lines], caller: int, said: str, log: Path, known: Verifier
) -> None:
    before = lines_of(log)
    put(log, tamper(before))
    report = verify(log, known)
    assert said in problems(report)
    assert report.problems[0]["entry"] == json.loads(before[at(before, caller)])["sequence"]


def test_our_log_says_where_it_was_cut_off(log: Path, known: Verifier) -> None:
    left = cut(lines_of(log))
    put(log, left)
    assert f"ends at entry {len(left)}" in problems(verify(log, known))


@pytest.mark.parametrize("tamper", TAMPERING)
def test_a_chain_written_anew_passes_without_signatures_and_is_found_with_them(
    tamper: Callable[[Lines], Lines], log: Path, known: Verifier
) -> None:
    forged = rechained(tamper(lines_of(log)))
    assert accepted_as_chain(forged)
    put(log, forged)
    assert not verify(log, known).ok
    without_checkpoints = rechained([line for line in forged if b'"kind":"checkpoint"' not in line])
    put(log, without_checkpoints)
    assert not verify(log, known).ok


def test_dropping_the_head_or_making_one_of_a_checkpoint_in_the_log_is_found(log: Path, known: Verifier) -> None:
    left = cut(lines_of(log))
    put(log, left)
    checkpoint = json.loads(left[-1])
    assert checkpoint["kind"] == "checkpoint"
    head = {"log": checkpoint["log"], "key": checkpoint["key"], "signature": checkpoint["signature"]}
    for sequence, digest in (
        (checkpoint["sequence"], checkpoint["hash"]),
        (checkpoint["sequence"] - 1, checkpoint["previous"]),
    ):
        (log / "audit.head").write_text(json.dumps(head | {"sequence": sequence, "hash": digest}))
        assert "audit.head is not signed" in problems(verify(log, known))
    (log / "audit.head").unlink()
    assert "audit.head is missing" in problems(verify(log, known))


def test_signing_anew_with_another_key_is_found_by_whoever_kept_the_first(
    log: Path, known: Verifier, tmp_path: Path
) -> None:
    other = Signer.of(tmp_path / "mine.key")
    new: Lines = []
    where = Chain()
    for fields in map(json.loads, edited(lines_of(log))):
        kept = {k: v for k, v in fields.items() if k not in ("sequence", "time", "kind", "previous", "hash")}
        if fields["kind"] == chain.CHECKPOINT:
            signature = other.sign(signing.CHECKPOINT, kept["log"], where.sequence, where.hash)
            kept |= {"key": other.fingerprint, "signature": signature}
        new.append(where.line(fields["kind"], 0.0, kept).rstrip(b"\n"))
    put(log, new)
    log_id = json.loads(new[0])["log"]
    head = {"log": log_id, "sequence": where.sequence, "hash": where.hash, "key": other.fingerprint}
    head["signature"] = other.sign(signing.HEAD, log_id, where.sequence, where.hash)
    (log / "audit.head").write_text(json.dumps(head))
    (log / "audit.pub").write_bytes(other.public)
    assert verify(log, Verifier.of([log / "audit.pub"])).ok  # the limit: the directory's own key proves little
    assert "not signed by a key that is known" in problems(verify(log, known))


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    log = written(tmp_path / "log", tmp_path / "audit.key", rotate_bytes=4096)
    known = Verifier.of([log / "audit.pub"])
    assert verify(log, known).ok
    segments = sorted(log.glob("audit-*.jsonl"))
    assert len(segments) >= 3
    for removed, said in ((0, "segment 1 is missing"), (1, "segment 2 is missing"), (-1, "cut off")):
        data = segments[removed].read_bytes()
        segments[removed].unlink()
        assert said in problems(verify(log, known))
        segments[removed].write_bytes(data)
    segments[1].write_bytes(segments[2].read_bytes())
    assert not verify(log, known).ok


def test_another_log_of_the_same_key_does_not_pass_for_this_one(
    log: Path, original: Path, known: Verifier, tmp_path: Path
) -> None:
    put(log, lines_of(written(tmp_path / "other", original.parent / "audit.key")))
    assert "of another log" in problems(verify(log, known))


def test_a_directory_put_back_is_found_by_a_checkpoint_kept_elsewhere_alone(tmp_path: Path) -> None:
    """The limit: an earlier state, head included, holds together. The server's log lines carry the checkpoints."""
    log = written(tmp_path / "log", tmp_path / "audit.key")
    known = Verifier.of([log / "audit.pub"])
    shutil.copytree(log, tmp_path / "earlier")
    written(log, tmp_path / "audit.key")
    latest = verify(log, known)
    shutil.rmtree(log)
    shutil.copytree(tmp_path / "earlier", log)
    assert verify(log, known).ok
    assert "cut off" in problems(verify(log, known, anchors=[(latest.sequence, latest.hash)]))


def test_what_no_checkpoint_covers_yet_can_be_cut_and_the_report_says_so(tmp_path: Path) -> None:
    """The limit, stated: the last entries, at most as many and as old as the settings say."""
    audit = AuditLog(AuditSettings(tmp_path / "log", commit=0, checkpoint_seconds=3600))
    for i in range(CALLS):
        audit.record(Event(who=f"caller-{i}", method="Infer", outcome="ok"))
    audit.flush()
    known = Verifier.of([tmp_path / "log" / "audit.pub"])
    whole = verify(tmp_path / "log", known)
    assert any("not covered" in note for note in whole.notes)
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    put(tmp_path / "copy", lines_of(tmp_path / "copy")[: whole.signed + 2])
    assert verify(tmp_path / "copy", known).ok
    audit.close()
