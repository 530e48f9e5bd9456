// Elements, and the small pictures made of them. Text goes in as text: nothing is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes; children are elements or text. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const whole = (n) => Math.round(n).toLocaleString("en");
export const percent = (p) => `${(100 * p).toFixed(p > 0 && p < 0.001 ? 2 : 1)} %`;
export const ms = (t) => `${t < 10 ? t.toFixed(2) : t.toFixed(t < 100 ? 1 : 0)} ms`;
export const times = (r) => `${r < 10 ? r.toFixed(1) : whole(r)} ×`;

/** Numbers as a strip: one column each, blue above zero, orange below, stronger where larger. */
export function strip(values, label) {
  const largest = Math.max(...values.map(Math.abs), 1e-9);
  const columns = values.map((value, at) =>
    svg("rect", {
      x: at, y: value > 0 ? 0 : 20, width: 1.03, height: 20, class: value > 0 ? "for" : "against",
      "fill-opacity": (0.08 + 0.92 * Math.abs(value) / largest).toFixed(3),
    }));
  return svg("svg", { class: "strip", viewBox: `0 0 ${values.length} 40`, preserveAspectRatio: "none", role: "img", "aria-label": label }, ...columns);
}

const CUT = 6;

/** How often each of the 256 bytes occurs, in units of an even spread (the dashed line); cut off at CUT times that. */
export function histogram(counts, label, own) {
  const even = counts.reduce((sum, count) => sum + count, 0) / 256;
  const path = counts.map((count, at) => {
    const height = (60 * Math.min(count / even, CUT)) / CUT;
    return `M${at} 60v${-height.toFixed(2)}h1v${height.toFixed(2)}z`;
  }).join("");
  const line = 60 - 60 / CUT;
  return svg("svg", { class: "histogram", viewBox: "0 0 256 60", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("path", { d: path, class: own ? "own" : "bytes" }),
    svg("line", { x1: 0, x2: 256, y1: line, y2: line }));
}

/** Bytes as pixels, one each, as light as the byte is large; as many whole rows as there are, up to `most`. */
export function noise(base64, label, columns, most) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const rows = Math.max(1, Math.min(most, Math.floor(bytes.length / columns)));
  const canvas = el("canvas", { class: "noise", width: columns, height: rows, role: "img", "aria-label": label });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let at = 0; at < columns * rows; at += 1) image.data.set([bytes[at], bytes[at], bytes[at], 255], 4 * at);
  context.putImageData(image, 0, 0);
  return canvas;
}

/** A labelled bar. parts: [width from 0 to 1, class] one after the other. */
export function bar(label, value, parts, first) {
  const pieces = parts.map(([width, kind]) => {
    const piece = el("i", { class: kind });
    piece.style.width = `${(100 * width).toFixed(3)}%`;
    return piece;
  });
  return el("li", { class: first ? "first" : undefined }, el("span", {}, label), el("span", { class: "bar", "aria-hidden": "true" }, pieces), el("span", { class: "value" }, value));
}

export const figure = (drawing, caption) => el("figure", {}, drawing, el("figcaption", {}, caption));

/** Names and values. */
export const facts = (pairs) => el("dl", { class: "facts" }, pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
