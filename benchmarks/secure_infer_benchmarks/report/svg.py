"""A drawing inside the page: colours become the page's own variables, styles become attributes, ids become its own.

A page that allows no inline style (its Content-Security-Policy names one style sheet by hash) shows none of what matplotlib
writes as `style="..."`; the same as attributes it does, and `var(--blue)` follows light and dark.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from secure_infer_benchmarks.report.colours import LIGHT

_XLINK = "{http://www.w3.org/1999/xlink}href"
_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
_LONG = re.compile(r"-?\d+\.\d{3,}")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
LARGER = 1.1
"""Text on the page beside its size in the drawing: the fonts of systems are narrower than the one drawn with."""
_DROPPED = ("font-family", "stroke-linejoin", "stroke-linecap", "stroke-miterlimit")


def inline(drawn: bytes, prefix: str, kind: str, title: str, description: str) -> str:
    """An <svg> element named by its title and description. prefix: unique in the page. kind: its class."""
    root = ET.fromstring(drawn)
    for element in list(root):
        if _local(element.tag) == "metadata":
            root.remove(element)
    _without_style_sheets(root)
    used = {held for element in root.iter() for held in _named(element)}
    for element in root.iter():
        element.tag = _local(element.tag)
        _rewrite(element, prefix, used)
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update(
        {
            "class": kind,
            "viewBox": _rounded(view),
            "role": "img",
            "aria-labelledby": f"{prefix}t",
            "aria-describedby": f"{prefix}d",
        }
    )
    for at, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, {"id": prefix + tag[0]})
        element.text = text
        root.insert(at, element)
    return _squeezed(ET.tostring(root, encoding="unicode"))


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _without_style_sheets(element: ET.Element) -> None:
    for child in list(element):
        if _local(child.tag) == "style":
            element.remove(child)
        else:
            _without_style_sheets(child)


def _named(element: ET.Element) -> list[str]:
    """Ids that an element points to."""
    found = re.findall(r"url\(#([^)]+)\)", " ".join(element.attrib.values()))
    return [*found, *([element.attrib[_XLINK][1:]] if _XLINK in element.attrib else [])]


def _rewrite(element: ET.Element, prefix: str, used: set[str]) -> None:
    held = dict(element.attrib)
    element.attrib.clear()
    for name, text in held.items():
        if name == "style":
            for declared in filter(None, (part.strip() for part in text.split(";"))):
                key, _, setting = (part.strip() for part in declared.partition(":"))
                _declare(element, key, setting, prefix)
        elif name == "id":
            if text in used:
                element.set("id", prefix + text)
        elif name == _XLINK:
            element.set("href", f"#{prefix}{text[1:]}")
        elif not (name == "transform" and text.startswith("rotate(-0")):
            element.set(name, _coloured(_rounded(text)).replace("url(#", f"url(#{prefix}"))


def _declare(element: ET.Element, key: str, setting: str, prefix: str) -> None:
    if key == "font":  # "bold 11.5px 'DejaVu Sans'": the family is the page's
        if "bold" in setting or " 700 " in f" {setting}":
            element.set("font-weight", "700")
        size = re.search(r"([\d.]+)px", setting)
        element.set("font-size", f"{LARGER * float(size.group(1) if size else 11):.4g}")
    elif key == "font-size":
        element.set(key, f"{LARGER * float(setting.removesuffix('px')):.4g}")
    elif key not in _DROPPED:
        element.set(key, _coloured(_rounded(setting)).replace("url(#", f"url(#{prefix}"))


def _coloured(text: str) -> str:
    return _COLOUR.sub(lambda found: _VARIABLES.get(found.group(), found.group()), text)


def _rounded(text: str) -> str:
    return _LONG.sub(lambda found: f"{float(found.group()):.2f}".rstrip("0").rstrip("."), text)


def _squeezed(text: str) -> str:
    return re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", text))
