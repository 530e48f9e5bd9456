// The explanation, on demand: the text with its units marked, and a bar for each of the largest.

import { bar, el } from "./draw.js";

const SHOWN = 10;

/** The step's content. ask: units -> the explanation, or an error whose message is one sentence. */
export function explanation(ask, offered) {
  if (!offered) return el("div", {}, "Not offered: this model answers with labels alone, and an explanation needs logits.");
  const found = el("div", { class: "why", "aria-live": "polite" });
  const buttons = ["words", "phrases"].map((units) => {
    const button = el("button", { type: "button", id: `explain-${units}` }, `Explain by ${units}`);
    button.addEventListener("click", async () => {
      if (found.getAttribute("aria-busy") === "true") return;
      found.setAttribute("aria-busy", "true");
      found.replaceChildren(el("p", { class: "status" }, `Asking once for every ${units === "words" ? "word" : "phrase"}, protected like the text itself …`));
      try {
        found.replaceChildren(...shown(await ask(units)));
      } catch (problem) {
        found.replaceChildren(el("p", { class: "error" }, problem.message));
      }
      found.setAttribute("aria-busy", "false");
    });
    return button;
  });
  return el("div", { class: "why" }, el("div", { class: "buttons" }, buttons), found);
}

function shown({ label, units, error_bound: bound }) {
  const largest = Math.max(...units.map((unit) => Math.abs(unit.adds)), 1e-9);
  const means = (unit) => Math.abs(unit.adds) > bound;
  const marked = units.flatMap((unit, at) => {
    const kind = !means(unit) ? "" : unit.adds > 0 ? "pro" : "con";
    const strong = kind && Math.abs(unit.adds) > largest / 3 ? " strong" : "";
    return [at ? " " : "", el("mark", { class: `${kind}${strong}`, title: signed(unit.adds) }, unit.text)];
  });
  const order = [...units].sort((a, b) => Math.abs(b.adds) - Math.abs(a.adds)).slice(0, SHOWN).sort((a, b) => b.adds - a.adds);
  const bars = order.map((unit) => bar(unit.text, signed(unit.adds), [[means(unit) ? Math.abs(unit.adds) / largest : 0, unit.adds > 0 ? "own" : "contra"]]));
  const left = units.length - order.length;
  return [
    el("p", { class: "text" }, ...marked),
    el("ul", { class: "bars", "aria-label": `What each adds to ${label}` }, bars),
    el("p", {}, el("small", {}, `What the logit of ${label} loses without each. Solid and blue speaks for it, hatched and orange against it.`
      + ` Within ${bound.toExponential(1)} of 0 says nothing: that is the error bound.${left > 0 ? ` ${left} more are nearer to 0.` : ""}`)),
  ];
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
