// The picture that is understood first: this machine, what travels, and who is asked.

import { el, noise, percent, strip, whole } from "./draw.js";

const sum = (list, name) => list.reduce((total, one) => total + one[name], 0);

/** Bytes that passed the sockets, or sizes of messages where nothing could be read. */
export function bytes(story) {
  return story.traffic.length ? { up: sum(story.traffic, "up"), down: sum(story.traffic, "down") } : story.sizes;
}

/** In words: how sure an answer is. */
export function verdict(answer) {
  if (answer.certain === null) return ["", "the label and nothing else is answered"];
  if (answer.abstain) return ["close", "below the model's advice: ask a person"];
  if (!answer.certain) return ["close", "close call: within twice the error bound"];
  return ["", "certain: protection's error is too small to change it"];
}

export function picture(story) {
  const [kind, words] = verdict(story.answer);
  const { up, down } = bytes(story);
  const here = el("section", { class: "side here" },
    el("h2", {}, "On this machine"),
    el("p", { class: "said" }, story.cleaned.left),
    el("figure", {}, strip(story.embedding.values, "The text as numbers"), el("figcaption", {}, `${story.embedding.values.length} numbers that stay here`)),
    el("p", { class: "verdict" },
      el("small", {}, story.answer.probability === null ? "answer" : `answer, ${percent(story.answer.probability)}`),
      el("strong", {}, story.answer.label),
      el("span", { class: `badge ${kind}` }, words)));
  const wire = el("div", { class: "wire" },
    el("div", {}, "goes out", el("b", {}, `${whole(up)} bytes`), el("span", { class: "track", "aria-hidden": "true" }, el("i")), story.scheme === "mpc" ? "in two halves" : "encrypted"),
    el("div", {}, "comes back", el("b", {}, `${whole(down)} bytes`), el("span", { class: "track back", "aria-hidden": "true" }, el("i")), story.scheme === "mpc" ? "in two halves" : "encrypted"));
  return el("div", { class: "picture" }, here, wire, story.scheme === "mpc" ? parties(story) : server(story));
}

function server(story) {
  const [seen] = story.view.seen;
  return el("section", { class: "side there" },
    el("h2", {}, "What the server sees"),
    seen ? noise(seen.pixels, "Noise: the first bytes of the ciphertext, a pixel each", 96, 40) : el("p", {}, sealed),
    el("p", {}, el("small", {}, "No text, no numbers, no answer. It learns sizes, times and the model's name.")));
}

function parties(story) {
  const { between, seen } = story.view;
  const rounds = `${between.rounds} ${between.rounds === 1 ? "round" : "rounds"}, ${whole(between.bytes)} bytes each way`;
  const halves = ["Party 0", "Party 1"].map((name, at) => el("div", { class: "party" }, el("h3", {}, name),
    seen.length ? noise(seen[at].pixels, `Noise: the half that ${name} was given, a pixel each byte`, 64, 36) : null));
  const brought = between.correlation_bytes
    ? `brought ${whole(between.correlation_bytes)} random bytes; sees no query`
    : "has nothing to do for this model";
  return el("section", { class: "side there" },
    el("h2", {}, "What the parties see"),
    el("div", { class: "halves" }, halves),
    el("p", { class: "between" }, el("span", { "aria-hidden": "true" }, "⇄ "), between.rounds ? rounds : "nothing passes between them for this model"),
    el("div", { class: "party dealer" }, el("h3", {}, "Dealer"), el("p", {}, brought)),
    el("p", {}, el("small", {}, seen.length ? "Each half by itself says nothing, to any computer." : sealed)));
}

export const sealed = "This connection is TLS: what is inside cannot be read on the way, not even to show it here.";
