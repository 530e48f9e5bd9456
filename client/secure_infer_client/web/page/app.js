// The form, and what is asked of this machine. Addresses are relative: the token is in the page's own.

import { el, ms, percent, whole } from "./draw.js";
import { explanation } from "./explain.js";
import { bytes, picture, verdict } from "./picture.js";
import { steps } from "./steps.js";

const at = (id) => document.getElementById(id);
const [form, text, model, go, status, error, result] = ["ask", "text", "model", "go", "status", "error", "result"].map(at);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const WAIT = 1000;
let busy = false;

/** Asks, and returns the answer; throws an Error whose message is one sentence. */
async function ask(name, asked) {
  let response;
  try {
    response = await fetch(`api/${name}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) });
  } catch {
    throw new Error("The page's own program does not answer: it may have ended. Start `secure-infer web` again.");
  }
  const json = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
  if (!json) throw new Error((await response.text()).trim());
  const found = await response.json();
  if (!response.ok) throw new Error(sentence(found.error));
  return found;
}

/** The catalogue's message as a sentence of the page. */
function sentence(message) {
  const plain = message.replace(/^text: /, "");
  return plain.charAt(0).toUpperCase() + plain.slice(1) + (/[.!?]$/.test(plain) ? "" : ".");
}

function complain(message) {
  error.textContent = message;
  error.hidden = !message;
  if (message) status.textContent = "";
}

const scheme = () => form.querySelector("input[name=scheme]:checked").value;

async function classify() {
  if (busy) return;
  complain("");
  if (!text.value.trim()) {
    text.setAttribute("aria-invalid", "true");
    complain("Type or paste a diagnosis first.");
    text.focus();
    return;
  }
  text.removeAttribute("aria-invalid");
  const asked = { scheme: scheme(), model: model.value, text: text.value };
  busy = true;
  go.setAttribute("aria-disabled", "true");
  status.textContent = "Asking …";
  try {
    show(await ask("classify", asked), asked);
  } catch (problem) {
    complain(problem.message);
  } finally {
    busy = false;
    go.removeAttribute("aria-disabled");
  }
}

function show(story, asked) {
  const why = explanation((units) => ask("explain", { ...asked, units }), story.answer.explainable);
  result.replaceChildren(el("h2", { class: "unseen" }, "The answer, and how it came about"), picture(story), steps(story, why));
  result.hidden = false;
  const { answer } = story;
  const sure = answer.probability === null ? "" : `, ${percent(answer.probability)}`;
  status.textContent = `${answer.label}${sure}; ${verdict(answer)[1]}. ${whole(bytes(story).up)} bytes went out, protected, in ${ms(story.cost.total_ms)}.`;
  const top = result.getBoundingClientRect().top;
  if (top > innerHeight * 0.6) result.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
}

/** What there is to ask; looks again while something starts. */
async function prepare(first) {
  let state;
  try {
    state = await ask("state", {});
  } catch (problem) {
    complain(problem.message);
    return;
  }
  if (first) fill(state);
  const waiting = [];
  for (const [name, { state: how, sentence: what }] of Object.entries(state.schemes)) {
    const choice = form.querySelector(`input[value="${name}"]`);
    choice.disabled = how === "absent";
    choice.parentElement.title = what;
    if (how === "starting") waiting.push(what);
    if (how === "absent" && choice.checked) complain(sentence(what));
  }
  if (!busy && result.hidden && error.hidden) status.textContent = waiting.length ? `${sentence(waiting.join(", "))} You can ask already; the answer comes when it is up.` : "Ready.";
  if (waiting.length) setTimeout(prepare, WAIT, false);
}

function fill(state) {
  form.querySelector(`input[value="${state.scheme}"]`).checked = true;
  model.replaceChildren(...state.models.map((name) => el("option", { value: name }, name)));
  text.maxLength = state.longest;
  at("samples").replaceChildren(...state.samples.map((sample) => {
    const button = el("button", { type: "button", title: sample }, sample);
    button.addEventListener("click", () => { text.value = sample; text.focus(); });
    return button;
  }));
}

function theme() {
  const held = document.documentElement.dataset.theme;
  const now = held ? held === "dark" : dark.matches;
  at("theme").setAttribute("aria-pressed", String(now));
  return now;
}

form.addEventListener("submit", (event) => { event.preventDefault(); classify(); });
text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) classify(); });
at("theme").addEventListener("click", () => { document.documentElement.dataset.theme = theme() ? "light" : "dark"; theme(); });
at("about-open").addEventListener("click", () => at("about").showModal());
dark.addEventListener("change", theme);
theme();
prepare(true);
