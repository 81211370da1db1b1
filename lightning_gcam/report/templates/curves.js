// Curves as small charts: yours on the left, the scores on the right, with the look that is shown marked in all of them.
const WIDE = 300, HIGH = 100, PAD = { left: 42, right: 6, top: 8, bottom: 16 };
const FIRST = ["energy", "object_lift", "pointing_game", "suspect_lift", "iou", "rank_accuracy", "blank_rate"];

// All points of a run by name; the scores of the looks are among them also where no logger was told.
function pointsOf(index) {
  const points = Object.create(null), one = DATA.runs[index];
  for (const [name, [steps, values]] of Object.entries(one.curves)) points[name] = steps.map((step, i) => [step, values[i]]);
  for (const each of one.monitors) {
    const fromLooks = Object.create(null);
    for (const there of each.looks) for (const [name, value] of Object.entries(there.scores || NOTHING)) (fromLooks[`${each.prefix}/${name}`] ||= []).push([there.step, value]);
    for (const [name, line] of Object.entries(fromLooks)) if (!points[name] || points[name].length < line.length) points[name] = line;
  }
  return points;
}
const POINTS = DATA.runs.map((_, index) => pointsOf(index));
const prefixes = () => run().monitors.map((each) => each.prefix + "/");

// One chart for each score: its chance level, the centre's and further methods' lines belong to it.
function chartsOf(names, prefix) {
  const charts = Object.create(null);
  for (const name of names) {
    const short = prefix ? name.slice(prefix.length) : name;
    const parts = prefix ? short.split("/") : [short], last = parts[parts.length - 1];
    const base = prefix ? last.replace(/_chance$/, "") : short;
    const hasOwn = !prefix || names.includes(prefix + base) || parts.length > 1;
    const kind = !prefix ? "curve" : parts[0] === "centre" ? "centre" : last !== base && hasOwn ? "chance" : parts.length > 1 ? "further" : "curve";
    (charts[hasOwn ? base : last] ||= []).push({ name, kind, words: kind === "curve" ? "" : kind === "chance" ? "chance" : parts.slice(0, -1).join("/") });
  }
  return charts;
}
function rank(base) {
  const at = FIRST.indexOf(base);
  if (at >= 0) return at;
  return 50 + (/acc|f1|auc/.test(base) ? 0 : /^val/.test(base) ? 1 : /^(lr|epoch)/.test(base) ? 9 : 2);
}
function valueAt(line, step) {
  let found = null;
  for (const [at, value] of line || []) { if (at > step) break; found = value; }
  return found;
}
function chart(base, lines, other) {
  const own = lines.map((each) => ({ ...each, points: POINTS[state.run][each.name] || [] }));
  const theirs = other === null ? [] : lines.filter((each) => each.kind === "curve").map((each) => ({ ...each, other: true, points: POINTS[other][each.name] || [] }));
  const all = [...own, ...theirs].filter((each) => each.points.length), flat = all.flatMap((each) => each.points);
  let low = lowest(flat.map((p) => p[1])), high = highest(flat.map((p) => p[1]));
  const start = lowest(flat.map((p) => p[0])), end = Math.max(highest(flat.map((p) => p[0])), start + 1);
  if (high - low < 1e-12) [low, high] = [Math.min(low, 0), high > 0 ? high : low < 0 ? 0 : 1];
  const x = (step) => PAD.left + ((step - start) / (end - start)) * (WIDE - PAD.left - PAD.right);
  const y = (value) => PAD.top + (1 - (value - low) / (high - low)) * (HIGH - PAD.top - PAD.bottom);
  const svg = draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
  svg.append(draw("line", { class: "axis", x1: PAD.left, x2: WIDE, y1: HIGH - PAD.bottom + 2, y2: HIGH - PAD.bottom + 2 }));
  for (const line of all) {
    const style = line.other ? "curve other" : line.kind === "further" ? "curve further" : line.kind;
    const path = line.points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const shape = draw("path", { class: style, d: path });
    shape.append(draw("title", {}, line.words || line.name));
    svg.append(shape);
    if (line.points.length === 1) svg.append(draw("circle", { cx: x(line.points[0][0]), cy: y(line.points[0][1]), r: 3, class: line.other ? "other" : "" }));
  }
  svg.append(draw("text", { x: PAD.left - 5, y: 4 + PAD.top, "text-anchor": "end" }, short(high)), draw("text", { x: PAD.left - 5, y: HIGH - PAD.bottom + 1, "text-anchor": "end" }, short(low)));
  svg.append(draw("text", { x: WIDE - 2, y: HIGH - 3, "text-anchor": "end" }, `step ${number(end)}`), draw("text", { x: PAD.left, y: HIGH - 3 }, number(start)));
  const now = draw("line", { class: "now", y1: PAD.top - 4, y2: HIGH - PAD.bottom + 2 }), dot = draw("circle", { r: 3.5 });
  svg.append(now, dot);
  const value = make("b"), figure = make("figure", { class: "chart" }, make("figcaption", {}, make("span", {}, base), value), svg);
  const words = [...new Set(own.filter((each) => each.words && each.points.length).map((each) => each.words))];
  if (words.length) figure.append(make("p", {}, words.map((each) => (each === "chance" ? "- - chance" : each === "centre" ? "··· a blob in the middle" : each)).join(", ")));
  const main = own.find((each) => each.kind === "curve") || own[0];
  figure.mark = (step) => {
    const at = valueAt(main.points, step), there = x(Math.min(Math.max(step, start), end));
    now.setAttribute("x1", there); now.setAttribute("x2", there);
    dot.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) { dot.setAttribute("cx", there); dot.setAttribute("cy", y(at)); }
    value.textContent = decimal(at);
    svg.setAttribute("aria-label", `${base}: ${decimal(at)} at step ${number(step)}; between ${decimal(low)} and ${decimal(high)} over the run`);
  };
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width) * WIDE;
    if (looks().length) goTo(looks().indexOf(nearest(looks(), start + ((share - PAD.left) / (WIDE - PAD.left - PAD.right)) * (end - start))));
  });
  return figure;
}
let figures = [];
function showCharts() {
  figures = [];
  const names = Object.keys(POINTS[state.run]), prefix = monitor().prefix + "/";
  const other = state.against.startsWith("run:") ? Number(state.against.slice(4)) : null;
  $("pair").hidden = other === null;
  if (other !== null) $("pair").replaceChildren(make("i"), run().name, make("i", { class: "other" }), DATA.runs[other].name);
  const ours = names.filter((name) => name.startsWith(prefix)), own = names.filter((name) => !prefixes().some((each) => name.startsWith(each)));
  showSide($("own"), chartsOf(own, ""), other, "No other metrics were logged.");
  showSide($("ours"), chartsOf(ours, prefix), other, "No scores: they need masks or boxes in the validation batch.");
}
function showSide(place, charts, other, nothing) {
  const sorted = Object.entries(charts).sort((a, b) => rank(a[0]) - rank(b[0]) || a[0].localeCompare(b[0]));
  const shown = sorted.map(([base, lines]) => chart(base, lines, other));
  for (const each of shown) figures.push(each);
  fill(place, shown.slice(0, 4));
  if (!shown.length) place.append(make("p", { class: "hint" }, nothing));
  if (shown.length > 4) place.append(make("details", {}, make("summary", {}, `${shown.length - 4} more`), fill(make("div"), shown.slice(4))));
}
const markCharts = () => figures.forEach((figure) => figure.mark(look() ? look().step : 0));
