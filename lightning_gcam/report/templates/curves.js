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

// What a score is compared with has the name of the score in its own, and is drawn in its chart.
const COMPARED = [[/_(follow_chance|same_class_follow_rate)$/, "_follow_rate"], [/_same_class_accuracy$/, "_swap_accuracy"], [/_chance$/, ""]];
const comparedWith = (name) => COMPARED.reduce((base, [end, its]) => base.replace(end, its), name);
const LINES = { __proto__: null, curve: "", chance: "- - chance", same: "··· a donor of the same class", centre: "··· a blob in the middle" };
// One chart for each score: its chance level, the centre's and further methods' lines belong to it.
function chartsOf(names, prefix) {
  const charts = Object.create(null);
  for (const name of names) {
    const short = prefix ? name.slice(prefix.length) : name;
    const parts = prefix ? short.split("/") : [short], last = parts[parts.length - 1];
    const base = prefix ? comparedWith(last) : short;
    const hasOwn = !prefix || names.includes(prefix + base) || parts.length > 1;
    const kind = !prefix ? "curve" : parts[0] === "centre" ? "centre" : last !== base && hasOwn ? (last.includes("_same_class_") ? "same" : "chance") : parts.length > 1 ? "further" : "curve";
    (charts[hasOwn ? base : last] ||= []).push({ name, kind, words: LINES[kind] ?? parts.slice(0, -1).join("/") });
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
// The frame of a chart: its axis, its ends, the line of the look that is shown; a click goes to the nearest look.
function frameOf(low, high, start, end, tall = HIGH) {
  const x = (step) => PAD.left + ((step - start) / (end - start)) * (WIDE - PAD.left - PAD.right);
  const y = (value) => PAD.top + (1 - (value - low) / (high - low)) * (tall - PAD.top - PAD.bottom);
  const svg = draw("svg", { viewBox: `0 0 ${WIDE} ${tall}`, role: "img" }), now = draw("line", { class: "now", y1: PAD.top - 4, y2: tall - PAD.bottom + 2 });
  svg.append(draw("line", { class: "axis", x1: PAD.left, x2: WIDE, y1: tall - PAD.bottom + 2, y2: tall - PAD.bottom + 2 }));
  svg.append(draw("text", { x: PAD.left - 5, y: 4 + PAD.top, "text-anchor": "end" }, short(high)), draw("text", { x: PAD.left - 5, y: tall - PAD.bottom + 1, "text-anchor": "end" }, short(low)));
  svg.append(draw("text", { x: WIDE - 2, y: tall - 3, "text-anchor": "end" }, `step ${number(end)}`), draw("text", { x: PAD.left, y: tall - 3 }, number(start)), now);
  const mark = (step) => {
    const there = x(Math.min(Math.max(step, start), end));
    now.setAttribute("x1", there); now.setAttribute("x2", there);
    return there;
  };
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width) * WIDE;
    if (looks().length) goTo(looks().indexOf(nearest(looks(), start + ((share - PAD.left) / (WIDE - PAD.left - PAD.right)) * (end - start))));
  });
  return { svg, x, y, now, mark };
}
// The steps of the looks at which a score was not measured, though it was at others; a curve has gaps there.
function gapsOf(index, name) {
  const its = DATA.runs[index].monitors.find((each) => name.startsWith(each.prefix + "/"));
  const missing = its ? its.looks.filter((each) => each.scores && !(name.slice(its.prefix.length + 1) in each.scores)) : [];
  return its && missing.length < its.looks.length ? missing.map((each) => each.step) : [];
}
// A line through the points between its gaps, and a dot for each point that stands alone.
function trace(svg, points, gaps, { x, y }, words, line, dot) {
  let passed = 0;
  const begins = points.map(([step], i) => { const from = passed; while (gaps[passed] < step) passed++; return !i || passed > from; });
  const at = ([step, value]) => [x(step).toFixed(1), y(value).toFixed(1)];
  const path = draw("path", { ...line, d: points.map((point, i) => `${begins[i] ? "M" : "L"}${at(point).join(" ")}`).join("") });
  path.append(draw("title", {}, words));
  svg.append(path);
  points.forEach((point, i) => { if (begins[i] && begins[i + 1] !== false) svg.append(draw("circle", { cx: at(point)[0], cy: at(point)[1], r: 3, ...dot })); });
}
function chart(base, lines, other) {
  const lineOf = (each, index) => ({ ...each, points: POINTS[index][each.name] || [], gaps: gapsOf(index, each.name) });
  const own = lines.map((each) => lineOf(each, state.run));
  const theirs = other === null ? [] : lines.filter((each) => each.kind === "curve").map((each) => ({ ...lineOf(each, other), other: true }));
  const all = [...own, ...theirs].filter((each) => each.points.length), flat = all.flatMap((each) => each.points);
  let low = lowest(flat.map((p) => p[1])), high = highest(flat.map((p) => p[1]));
  const start = lowest(flat.map((p) => p[0])), end = Math.max(highest(flat.map((p) => p[0])), start + 1);
  if (high - low < 1e-12) [low, high] = [Math.min(low, 0), high > 0 ? high : low < 0 ? 0 : 1];
  const frame = frameOf(low, high, start, end), { svg, y, now, mark } = frame;
  for (const line of all) {
    const style = line.other ? "curve other" : line.kind === "further" ? "curve further" : line.kind;
    trace(svg, line.points, line.gaps, frame, line.words || line.name, { class: style }, { class: line.other ? "other" : "" });
  }
  const dot = draw("circle", { r: 3.5 });
  svg.append(now, dot);
  const value = make("b"), figure = make("figure", { class: "chart" }, make("figcaption", {}, make("span", {}, base), value), svg);
  const words = [...new Set(own.filter((each) => each.words && each.points.length).map((each) => each.words))];
  if (words.length) figure.append(make("p", {}, words.join(", ")));
  const main = own.find((each) => each.kind === "curve") || own[0];
  figure.mark = (step) => {
    const at = main.gaps.includes(step) ? null : valueAt(main.points, step), there = mark(step);
    dot.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) { dot.setAttribute("cx", there); dot.setAttribute("cy", y(at)); }
    value.textContent = decimal(at);
    svg.setAttribute("aria-label", `${base}: ${decimal(at)} at step ${number(step)}; between ${decimal(low)} and ${decimal(high)} over the run`);
  };
  return figure;
}
let figures = [];
function showCharts() {
  figures = [];
  prepareFollows();
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
