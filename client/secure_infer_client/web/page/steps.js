// The steps of one call, in its order.

import { bar, el, facts, figure, histogram, ms, percent, strip, times, whole } from "./draw.js";
import { bytes, sealed, verdict } from "./picture.js";

const PLACES = { here: "stays on this machine", goes: "travels, protected", there: "at the server" };
const FIRST_BARS = 5;
const NOISE = 0.4;  // between chi-squared of uniform bytes, over its mean, and 1: four standard deviations

/** One step: number, title, where it happens, one sentence, and what there is to see. */
function step(number, title, place, took, sentence, ...content) {
  const made = el("li", { class: "step" },
    el("header", {}, el("span", { class: "n", "aria-hidden": "true" }, String(number)), el("h2", {}, title),
      place === null ? null : el("span", { class: `tag ${place}` }, PLACES[place]), took === null ? null : el("span", { class: "ms" }, ms(took))),
    el("p", {}, sentence), ...content);
  made.style.animationDelay = `${0.09 * number}s`;
  return made;
}

export function steps(story, explanation) {
  const shared = story.scheme === "mpc";
  const list = [cleaned(story), embedding(story), protection(story, shared), traffic(story, shared), view(story, shared),
    answer(story, shared), step(7, "Why this answer", "goes", null,
      "Each word or phrase is left out in turn. Every variant becomes numbers here and is asked in the same protected way.", explanation),
    cost(story, shared)];
  return el("ol", { class: "steps" }, list);
}

function cleaned({ cleaned: { pieces, removed } }) {
  const sentence = removed === 0
    ? "Rules look for names, dates, addresses and numbers of people. They found none in this text."
    : `Rules removed ${removed} ${removed === 1 ? "identifier" : "identifiers"}. Only the rest is used.`;
  const text = pieces.map((piece) => piece.kind === null ? piece.text : el("del", {}, piece.text, el("span", { class: "kind" }, piece.kind)));
  return step(1, "Identifiers are removed", "here", null, sentence, el("div", { class: "text" }, text));
}

function embedding({ embedding: { values, windows, ms: took } }) {
  const long = windows > 1 ? ` The text is long: it was read in ${windows} windows and averaged.` : "";
  return step(2, `The text becomes ${values.length} numbers`, "here", took,
    `A language model on this machine turns the meaning into numbers. They would tell much about the text, so they stay here.${long}`,
    figure(strip(values, `${values.length} numbers from ${Math.min(...values)} to ${Math.max(...values)}`),
      "One column a number: upper half and blue above zero, lower half and orange below."));
}

function protection({ protection: p }, shared) {
  if (shared) {
    return step(3, "The numbers are split in two", "here", p.ms,
      "One half is random words. The other is the numbers less those words. Either alone is random; only their sum means anything.",
      facts([["split", p.plan], ["keys", "none"], ["rests on", p.rests_on]]));
  }
  return step(3, "The numbers are encrypted", "here", p.ms,
    "The secret key was made when this page started. It stays in memory on this machine and is gone when the page ends.",
    facts([["security", `${p.security_bits} bits`], ["scheme", `CKKS, ring of ${whole(p.degree)} × ${p.modulus_bits} bits`],
      ["how it is evaluated", p.plan], ["noise that hides the model", `${p.smudging_bits} bits`],
      ["public key, sent once", `${whole(p.key_bytes)} bytes`], ["secret key", "never sent"]]));
}

function traffic(story, shared) {
  const { up, down } = bytes(story);
  const text = new TextEncoder().encode(story.cleaned.left).length;
  const largest = Math.max(up, down);
  const each = story.traffic.length > 1 ? ` That is ${story.traffic.map((one) => whole(one.up)).join(" and ")} to the two parties.` : "";
  return step(4, shared ? "Only halves travel" : "Only ciphertext travels", "goes", null,
    `The message has the same size for every text; the connection adds a few bytes of its own.${each}`,
    el("ul", { class: "bars" },
      bar("the text itself", `${whole(text)} B`, [[text / largest, ""]]),
      bar("goes out", `${whole(up)} B`, [[up / largest, "own"]]),
      bar("comes back", `${whole(down)} B`, [[down / largest, "own s1"]])));
}

function view(story, shared) {
  const { seen, searched, learns, joined } = story.view;
  const title = shared ? "What the parties see" : "What the server sees";
  const table = el("div", { class: "two" }, learnt(shared ? "What each party was told" : "What the server learns", learns),
    shared ? learnt("Who learns what", story.view.between.who_learns) : null);
  if (!seen.length) return step(5, title, "there", null, sealed, table);
  const own = story.embedding;
  const about = ({ bytes: size, unevenness: u, filled }) => `${whole(size)} bytes${filled ? ", without the zeros that fill up each number" : ""}, ${Math.abs(u - 1) < NOISE ? `as even as noise (${u.toFixed(2)}; noise is about 1)` : `${times(u)} as uneven as noise`}`;
  const pictures = [...seen.map((one) => figure(histogram(one.histogram, `Even histogram of the bytes of ${one.who}`, false),
    `${one.who === "server" ? "Ciphertext" : `Half of ${one.who}`}: ${about(one)}`)),
  figure(histogram(own.histogram, "Uneven histogram of the embedding's bytes", true), `Embedding, which stays here: ${about(own)}`)];
  const found = searched.found.length ? `Found in them: ${searched.found.join(", ")}.` : "Nothing of them was found.";
  return step(5, title, "there", null,
    `How often each of the 256 bytes occurs: what is protected is as even as noise (dashed), the numbers behind it are not.`,
    el("div", { class: "two" }, pictures),
    el("div", {}, el("h3", {}, `The first bytes${seen.length > 1 ? " that each was given" : ""}`), seen.map((one) => el("p", { class: "hex" }, spaced(one.hex)))),
    joined ? together(joined) : null,
    el("p", {}, `All ${whole(searched.bytes)} bytes that went out were searched for the text, its words and the numbers. ${found}`),
    table);
}

const learnt = (title, rows) => el("div", {}, el("h3", {}, title), el("table", { class: `learns ${rows.length < 5 ? "few" : ""}` },
  el("tbody", {}, rows.map(([what, value]) => el("tr", {}, el("th", { scope: "row" }, what), el("td", {}, value))))));

const spaced = (hex) => hex.replace(/(.{8})/g, "$1 ").trim();

function together({ values, error }) {
  const near = error === null ? "" : ` They are within ${error.toExponential(0)} of those above: the rounding to fixed point.`;
  return el("div", {}, el("h3", {}, "Both halves added up, as no party can"),
    figure(strip(values, "The sum of both halves: the same numbers as above"), `The numbers again.${near}`));
}

function answer(story, shared) {
  const a = story.answer;
  const [kind, words] = verdict(a);
  const bars = a.bars.map((one, at) => bar(one.label, percent(one.probability), [[one.probability, at === 0 ? "own" : ""]], at === 0));
  const rest = bars.slice(FIRST_BARS);
  const numbers = a.numbers.map(([name, value]) => [name, value.toPrecision(5)]);
  const away = a.margin === null ? "" : ` The best is ahead by ${a.margin.toFixed(3)}; the error of a logit is at most ${a.error_bound}.`;
  return step(6, shared ? "The answer is put together here" : "The answer is decrypted here", "here", a.ms,
    `${a.label}.${away}${a.failure ? ` Of the method: ${a.failure}.` : ""}`,
    el("div", {}, el("span", { class: `badge ${kind}` }, words)),
    bars.length ? el("ul", { class: "bars", "aria-label": "Labels with probabilities" }, bars.slice(0, FIRST_BARS)) : null,
    rest.length ? el("details", {}, el("summary", {}, `${rest.length} more labels`), el("ul", { class: "bars" }, rest)) : null,
    numbers.length ? facts(numbers) : null);
}

function cost(story, shared) {
  const { stages, total_ms: total, plaintext, bytes: moved, embed_ms: embed } = story.cost;
  const names = { protect: shared ? "split" : "encrypt", network: "network", server: shared ? "parties" : "server", read: shared ? "join" : "decrypt" };
  const how = shared ? "shared" : "encrypted";
  const largest = Math.max(total, plaintext ? plaintext.ms : 0);
  const timed = [bar(how, ms(total), stages.map((stage, at) => [stage.ms / largest, `own s${at}`]), true)];
  const sized = [];
  let sentence = `In the clear is not offered at this server, so there is nothing to compare with. The embedding takes ${ms(embed)} either way.`;
  if (plaintext) {
    const [up, down] = [moved.up + moved.down, plaintext.up + plaintext.down];
    timed.unshift(bar("in the clear = 1", ms(plaintext.ms), [[plaintext.ms / largest, ""]]));
    sized.push(bar("in the clear = 1", `${whole(down)} B`, [[down / Math.max(up, down), ""]]), bar(how, `${whole(up)} B`, [[up / Math.max(up, down), "own"]], true));
    sentence = `${times(total / plaintext.ms)} the time and ${times(up / down)} the bytes of the same question in the clear, on this machine just now. The embedding comes before either and takes ${ms(embed)}.`;
  }
  const legend = el("ul", { class: "legend" }, stages.map((stage, at) => el("li", {}, el("span", { class: `key s${at}` }), `${names[stage.name]} ${ms(stage.ms)}`)));
  return step(8, "What it costs", null, null, sentence,
    el("div", {}, el("h3", {}, "time"), el("ul", { class: "bars" }, timed)), legend,
    sized.length ? el("div", {}, el("h3", {}, "bytes, both ways"), el("ul", { class: "bars" }, sized)) : null,
    plaintext ? el("p", {}, el("small", {}, "The question in the clear is a packaged example, sent to this page's own demonstration server. What you type is never sent like that.")) : null);
}
