// What every part uses: the data, small helpers, and the one state of the page.
// Names are other people's: an object without a prototype has no "constructor" and no "toString" before one is put in.
const bare = (object) => Object.assign(Object.create(null), object);
const NOTHING = bare();
const DATA = JSON.parse(document.getElementById("data").textContent, (_, value) => (value && typeof value === "object" && !Array.isArray(value) ? bare(value) : value));
document.getElementById("data").remove();
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// Text goes in as text, never as markup: class names and captions are other people's.
// Children one by one: a call takes no more arguments than its stack holds, and a run may have more looks.
function fill(element, children) {
  element.replaceChildren();
  for (const each of children) element.append(each);
  return element;
}
const lowest = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const highest = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || NOTHING)) {
    if (name === "class") element.className = value;
    else if (name in element && name !== "style" && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
function draw(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || NOTHING)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
function bytes(base64) {
  const text = atob(base64), out = new Uint8Array(text.length);
  for (let i = 0; i < out.length; i++) out[i] = text.charCodeAt(i);
  return out;
}
function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(1) : size >= 100 ? value.toFixed(1) : value.toFixed(3);
}
const decimal = (value) => (Number.isInteger(value) && Math.abs(value) < 1e5 ? value.toFixed(3) : number(value));
const short = (value) => (value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 1e4) ? value.toExponential(0) : value.toFixed(Math.abs(value) >= 100 ? 0 : 2));
const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + decimal(Math.abs(value));
const plural = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;

const state = { run: 0, monitor: 0, look: 0, against: "none", order: null };
const run = () => DATA.runs[state.run];
const monitor = () => run().monitors[state.monitor] || { prefix: "", samples: [], looks: [] };
const looks = () => monitor().looks;
const look = () => looks()[state.look];

// What the page compares with: nothing where the run or the look is not there.
function isThere(choice) {
  const [kind, index] = choice.split(":"), at = Number(index);
  if (kind === "run") return Boolean(DATA.runs[at]) && at !== state.run;
  if (kind === "look") return Boolean(looks()[at]);
  return ["none", "first", "previous"].includes(choice);
}
const anotherRun = () => (DATA.runs.length > 1 ? `run:${state.run ? 0 : 1}` : "none");
// The looks to compare with: of another run those of the monitor of the same name, else its first.
function otherMonitor(index) {
  const all = DATA.runs[index].monitors;
  return all.find((each) => each.prefix === monitor().prefix) || all[0];
}
function nearest(all, step) {
  let best = 0;
  all.forEach((each, i) => { if (Math.abs(each.step - step) < Math.abs(all[best].step - step)) best = i; });
  return all[best];
}
// {look, samples, words} that the page compares with, or null.
function against() {
  const [kind, index] = state.against.split(":"), now = look();
  if (!now || kind === "none") return null;
  if (kind === "run") {
    const other = otherMonitor(Number(index));
    const there = other && other.looks.length ? nearest(other.looks, now.step) : null;
    return there && { look: there, samples: other.samples, run: Number(index), words: `${DATA.runs[index].name}, step ${number(there.step)}` };
  }
  const at = kind === "first" ? 0 : kind === "previous" ? state.look - 1 : Number(index);
  const there = looks()[at];
  return there ? { look: there, samples: monitor().samples, run: state.run, words: `step ${number(there.step)}` } : null;
}
