// The run in numbers: a few tiles, and each score of this look beside its chance level and where it began.
function tile(value, words) {
  const text = String(value);
  return make("div", { class: "tile" }, make("b", { class: text.length > 12 ? "long" : "" }, text), make("span", {}, words));
}
function showNumbers() {
  const now = look(), tiles = [tile(looks().length, looks().length === 1 ? "look" : "looks")];
  if (now) {
    const samples = now.samples || [], judged = samples.filter((each) => each.right === true || each.right === false);
    tiles.push(tile(number(looks()[looks().length - 1].step), "last step"));
    if (samples.length) tiles.push(tile(samples.length, "samples, the same at every look"));
    if (judged.length) tiles.push(tile(`${judged.filter((each) => each.right).length} of ${judged.length}`, "predicted right at this look"));
    const maps = samples.map((each) => (each.maps || NOTHING)[method()]).filter(Boolean), blank = maps.filter((each) => !each[1]).length;
    if (maps.length) tiles.push(tile(blank ? `${blank} of ${maps.length}` : "none", "blank maps at this look"));
    tiles.push(tile(run().alerts.length || "none", run().alerts.length === 1 ? "alarm" : "alarms"));
    if (now.layer) tiles.push(tile(now.layer, `layer; ${now.explains}`));
  }
  $("tiles").replaceChildren(...tiles);
  showScores(now);
  const entries = Object.entries(run().hyperparameters || NOTHING), list = $("hyperparameters").querySelector("dl");
  $("hyperparameters").hidden = !entries.length;
  fill(list, entries.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}
function showScores(now) {
  const scores = (now && now.scores) || NOTHING, other = against(), first = looks()[0];
  const before = other ? other.look.scores || NOTHING : (first && first.scores) || NOTHING;
  const names = Object.keys(scores).filter((name) => !/_chance$/.test(name) && !name.startsWith("centre/"));
  names.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  const head = ["score", "this look", "95% interval", "n", "chance", other ? other.words : "first look", "change"];
  const rows = names.map((name) => {
    const [n, , low, high] = (now.measured || NOTHING)[name] || [], parts = name.split("/"), last = parts.pop();
    const chance = name.endsWith("_lift") ? 1 : scores[`${name}_chance`] ?? scores[`${last}_chance`] ?? scores[`${name.replace(/_rate$/, "")}_chance`];
    const change = name in before ? signed(scores[name] - before[name]) : "–";
    const interval = low === null || low === undefined ? "–" : `${decimal(low)} to ${decimal(high)}`;
    return make("tr", {}, make("th", { scope: "row" }, name), ...[decimal(scores[name]), interval, n ?? "–", decimal(chance), decimal(before[name]), change].map((text) => make("td", {}, String(text))));
  });
  $("scores").replaceChildren();
  if (rows.length) $("scores").append(
    make("caption", { hidden: true }, "Scores of this look"),
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))), fill(make("tbody"), rows));
}
function showAlerts() {
  const alerts = DATA.runs.flatMap((one, index) => one.alerts.map((each) => ({ ...each, run: index })));
  $("alerts").hidden = !alerts.length;
  fill($("alerts"), alerts.map((each) => {
    const button = make("button", { type: "button" }, `Show step ${number(each.step)}`);
    button.addEventListener("click", () => {
      state.run = each.run;
      const at = run().monitors.findIndex((one) => one.prefix === each.log_prefix);
      chooseMonitor(Math.max(at, 0));
      if (looks().length) goTo(looks().indexOf(nearest(looks(), each.step)));
    });
    const where = DATA.runs.length > 1 ? `${DATA.runs[each.run].name}, ` : "";
    const from = `ShortcutAlarm · ${where}${each.log_prefix}, step ${number(each.step)}`;
    return make("div", { class: "note", role: "note" }, make("strong", {}, from), ...(each.headline ? alertParts(each, alerts.length === 1) : [make("p", {}, each.message)]), button);
  }));
}
// An alert in its parts: its headline, and behind it the evidence with one number a row, what was not checked, what to try.
// Of several alerts all are folded, so that the looks below them stay in sight.
function alertParts(alert, isOpen) {
  const near = (value) => (value === null || value === undefined ? "" : value.toFixed(2));
  const rows = alert.evidence.map((each) => {
    const interval = each.interval ? each.interval.map(near).join(" to ") : "";
    return make("tr", {}, make("th", { scope: "row" }, each.what), ...[near(each.value), interval, each.n ?? "", near(each.chance)].map((text) => make("td", {}, String(text))));
  });
  const head = ["measured", "value", "interval of 95%", "n", "chance"].map((text) => make("th", { scope: "col" }, text));
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), fill(make("tbody"), rows));
  const unchecked = alert.unchecked.length ? [make("p", {}, `Not checked: ${alert.unchecked.join("; ")}`)] : [];
  const details = make("details", isOpen ? { open: "" } : {}, make("summary", {}, "What was measured, and what to try"),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "What was measured" }, table), ...unchecked,
    make("p", {}, "What to try:"), fill(make("ul"), alert.advice.map((text) => make("li", {}, text))));
  return [make("p", { class: "headline" }, alert.headline), details];
}
