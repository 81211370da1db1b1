// What the prediction follows: a bar for each property that was exchanged, and the follow rates over the looks.
const RATE = "_follow_rate", CONTROL = "_same_class_follow_rate", OBJECT = "object", TALL = 170;
// Three colours of the page by three patterns: lines are told apart without colours, too.
const strokeOf = (name, i) => (name === OBJECT ? "stroke: var(--quiet)" : `stroke: var(--${["accent", "other", "text"][i % 3]}); stroke-dasharray: ${["none", "8 3", "2 3"][Math.floor(i / 3) % 3]}`);

// In the order in which they were measured; the object, which should be followed, is the last.
function propertiesOf(all) {
  const names = new Set();
  for (const each of all) for (const name of Object.keys(each.scores || NOTHING)) if (name.endsWith(RATE) && !name.endsWith(CONTROL) && !name.includes("/")) names.add(name.slice(0, -RATE.length));
  return [...names].filter((name) => name !== OBJECT).concat(names.has(OBJECT) ? [OBJECT] : []);
}
// What was measured of a property at a look; null where it was not.
function followOf(there, name) {
  const scores = there.scores || NOTHING, rate = scores[name + RATE];
  if (rate === undefined) return null;
  const controls = [`${name}_follow_chance`, name + CONTROL].filter((each) => each in scores).map((each) => scores[each]);
  const [n, , low, high] = (there.measured || NOTHING)[name + RATE] || [];
  const interval = typeof low === "number" && typeof high === "number" ? [low, high] : null;
  return { rate, interval, n, control: controls.length ? highest(controls) : null, kept: scores[`${name}_swap_accuracy`] };
}
const share = (value) => 100 * Math.min(Math.max(value, 0), 1);
function mark(kind, from, to) {
  const element = make("span", { class: kind });
  element.style.left = `${share(from)}%`;
  if (to !== undefined) element.style.width = `${share(to) - share(from)}%`;
  return element;
}
function factsOf(found, name) {
  if (!found) return ["not measured at this look"];
  const other = against(), before = other && followOf(other.look, name);
  return [
    found.interval && `95% interval ${decimal(found.interval[0])} to ${decimal(found.interval[1])}`,
    found.control !== null && `tick ${decimal(found.control)}`,
    typeof found.n === "number" && `n ${found.n}`,
    found.kept !== undefined && `accuracy kept ${decimal(found.kept)}`,
    before && `${other.words}: ${decimal(before.rate)}`,
  ].filter(Boolean);
}
let follows = { names: [], rows: [], figure: null };
function prepareFollows() {
  const names = propertiesOf(looks());
  follows = { names, rows: [], figure: names.length && looks().length > 1 ? followChart(names) : null };
  $("follows").hidden = !names.length;
  follows.rows = names.map((name, i) => {
    const swatch = draw("svg", { class: "swatch", viewBox: "0 0 26 6", "aria-hidden": "true" }), bar = make("div", { class: "bar", role: "img" }), value = make("b"), facts = make("p", { class: "facts" });
    swatch.append(draw("line", { x1: 0, x2: 26, y1: 3, y2: 3, style: strokeOf(name, i) }));
    const words = make("span", { class: "name" }, follows.figure ? swatch : "", name.replaceAll("_", " "));
    if (name === OBJECT) words.append(make("small", {}, "should be followed"));
    return { bar, value, facts, element: make("div", { class: name === OBJECT ? "follow apart" : "follow", role: "listitem" }, words, bar, value, facts) };
  });
  fill($("follow-rows"), follows.rows.map((each) => each.element));
  fill($("follow-chart"), follows.figure ? [follows.figure] : []);
}
function showFollows() {
  const now = look();
  follows.names.forEach((name, i) => {
    const { bar, value, facts, element } = follows.rows[i], found = followOf(now, name), words = factsOf(found, name);
    element.classList.toggle("missing", !found);
    value.textContent = found ? decimal(found.rate) : "–";
    facts.textContent = words.join(" · ");
    bar.setAttribute("aria-label", `${name.replaceAll("_", " ")}: ${found ? `followed ${decimal(found.rate)}, ` : ""}${words.join(", ")}`);
    bar.replaceChildren();
    if (!found) return;
    bar.append(mark("rate", 0, found.rate));
    if (found.interval) bar.append(mark("whisker", ...found.interval));
    if (found.control !== null) bar.append(mark("tick", found.control));
  });
  if (follows.figure && now) follows.figure.mark(now);
}
// A line a property; a look at which it was not measured is a gap.
function followChart(names) {
  const steps = looks().map((each) => each.step), start = steps[0], end = Math.max(steps[steps.length - 1], start + 1);
  const frame = frameOf(0, 1, start, end, TALL), svg = frame.svg;
  names.forEach((name, i) => {
    const points = looks().map((each) => [each.step, (each.scores || NOTHING)[name + RATE]]), style = strokeOf(name, i);
    const there = points.filter((each) => each[1] !== undefined).map(([step, rate]) => [step, share(rate) / 100]);
    const gaps = points.filter((each) => each[1] === undefined).map((each) => each[0]);
    trace(svg, there, gaps, frame, name, { class: "curve", style }, { style: style.replace("stroke", "fill") });
  });
  const figure = make("figure", { class: "chart" }, make("figcaption", {}, make("span", {}, "followed, over the looks")), svg, make("p", {}, "A line a property, as before its name. Gaps: not measured, as where the accuracy is not clearly above chance."));
  figure.mark = (now) => {
    frame.mark(now.step);
    const rates = names.map((name) => `${name} ${decimal((now.scores || NOTHING)[name + RATE])}`);
    svg.setAttribute("aria-label", `Follow rates from step ${number(start)} to ${number(end)}; at step ${number(now.step)}: ${rates.join(", ")}`);
  };
  return figure;
}
