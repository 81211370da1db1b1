// The samples: a card each, which keeps its place while the slider moves; sorted and filtered where a person asks for it.
let cards = [];
const method = () => $("method").value;
const scoreOf = (words, name) => { const own = method() === methods()[0] ? name : `${method()}/${name}`; return words.scores ? words.scores[own] : undefined; };
const methods = () => { const all = look() && look().samples && look().samples[0]; return all ? Object.keys(all.maps) : []; };

function options(select, entries, keep) {
  const before = keep === undefined ? select.value : keep;
  fill(select, entries.map(([value, words]) => make("option", { value: String(value) }, words)));
  if (entries.some(([value]) => String(value) === before)) select.value = before;
}
function prepareTools() {
  const now = look(), samples = monitor().samples;
  options($("method"), methods().map((name) => [name, name.replaceAll("_", " ")]));
  const scores = [...new Set((now && now.samples ? now.samples : []).flatMap((each) => Object.keys(each.scores)))].filter((name) => !name.includes("/") && !name.endsWith("_chance"));
  options($("sort"), [["place", "place"], ["class", "class"], ["wrong", "wrong first"], ["sure", "surest first"], ["change", "what changed most"], ["peak", "raw peak, lowest first"], ...scores.flatMap((name) => [[`+${name}`, `${name}, lowest first`], [`-${name}`, `${name}, highest first`]])]);
  options($("class"), [["", "all"], ...[...new Set(samples.flatMap((each) => each.classes))].sort((a, b) => a.localeCompare(b, "en", { numeric: true })).map((name) => [`=${name}`, name])]);
  const panels = ($("plain").checked ? 1 : 0) + (state.against !== "none" && $("how").value === "side" ? 2 : 1);
  const isCurve = monitor().samples.some((each) => each.band), wide = isCurve ? 520 : monitor().samples.length ? { 1: 200, 2: 330, 3: 440 }[panels] : 600;
  $("cards").classList.toggle("curves", isCurve);
  $("cards").style.setProperty("--card-width", `${wide}px`);
}
// Which samples, in which order, as of the look that is shown when a person asks for it.
function arrange() {
  const now = look(), samples = monitor().samples;
  state.order = null;
  if (!now || !now.samples) return;
  const other = against() || { look: looks()[0], words: "the first look" }, key = $("sort").value;
  const there = other.look.samples || [], words = (i) => now.samples[i];
  const missing = (value) => (value === undefined || value === null ? Infinity : value);
  const keys = {
    __proto__: null, place: () => 0, class: (i) => (samples[i].classes || []).join(" "), wrong: (i) => (words(i).right === false ? 0 : words(i).right ? 2 : 1),
    sure: (i) => -(words(i).probability || 0), peak: (i) => missing((words(i).maps[method()] || [])[1]),
    change: (i) => -change(words(i).maps[method()], ((there[i] || NOTHING).maps || NOTHING)[method()]),
  };
  const by = keys[key] || ((i) => { const value = scoreOf(words(i), key.slice(1)); return value === undefined ? Infinity : key[0] === "-" ? -value : value; });
  const wanted = $("class").value, right = $("right").value;
  state.order = samples.map((_, i) => i).filter((i) => {
    if (wanted && !samples[i].classes.includes(wanted.slice(1))) return false;
    if (right === "turned") return there[i] && there[i].right !== words(i).right;
    return !right || words(i).right === (right === "right");
  });
  const sorted = new Map(state.order.map((i) => [i, by(i)]));
  state.order.sort((a, b) => { const p = sorted.get(a), q = sorted.get(b); return p < q ? -1 : p > q ? 1 : a - b; });
  const as = key === "place" && !wanted && !right ? "in their places" : `as of step ${number(now.step)}, and they stay there while you move`;
  const with_ = key === "change" || right === "turned" ? `, compared with ${other.words}` : "";
  const strangers = other.samples && samples.some((each, i) => (other.samples[i] || NOTHING).image !== each.image);
  const beside = strangers ? " The two runs looked at other samples: they stand side by side by their number only." : "";
  $("count").textContent = `${state.order.length} of ${plural(samples.length, "sample")}, ${as}${with_}.${beside}`;
  buildCards();
}
function panel(sample, words, picture) {
  const sheet = make("div", { class: "sheet" }, picture), frame = make("div", { class: "frame" }, sheet), caption = make("figcaption", {}, words);
  if (sample.slices) {
    frame.classList.add("sliced");
    frame.style.aspectRatio = `${sample.slices.size[1]} / ${sample.slices.size[0]}`;
    sheet.style.height = `${100 * sample.slices.numbers.length}%`;
  }
  return { figure: make("figure", { class: "panel" }, frame, caption), frame, sheet, caption };
}
const canvasOf = (sample, alt) => make("canvas", { class: sample.band ? "" : "pixelated", role: "img", "aria-label": alt });
const imageOf = (sample, src, alt) => make("img", { class: sample.band ? "" : "pixelated", src, alt });

// The slices or frames of a sample: at the peak of the map until a person moves them.
const sliceOfPeak = (card) => { const map = (look().samples[card.index].maps || NOTHING)[method()]; return map && map[1] ? Math.min(Math.floor(map[2] * card.sample.slices.numbers.length), card.sample.slices.numbers.length - 1) : null; };
function turn(card) {
  if (!card.range) return;
  const { numbers, of, kind } = card.sample.slices, peak = sliceOfPeak(card), at = card.slice ?? peak ?? numbers.length >> 1;
  card.range.value = at;
  const words = `${kind === "video" ? "frame" : "axial slice"} ${numbers[at] + 1}/${of}${at === peak ? " · peak" : ""}`;
  card.where.textContent = words;
  card.range.setAttribute("aria-valuetext", words);
  for (const sheet of card.panels.querySelectorAll(".sheet")) sheet.style.top = `${-100 * at}%`;
}
function addSlider(card) {
  const { numbers } = card.sample.slices;
  card.range = make("input", { type: "range", min: "0", max: String(numbers.length - 1), "aria-label": `Slice of sample ${card.index + 1}` });
  card.where = make("output", {});
  card.range.addEventListener("input", () => { card.slice = Number(card.range.value); turn(card); });
  card.panels.after(make("div", { class: "slices" }, card.range, card.where));
}
function buildCards() {
  cards = [];
  const box = $("cards");
  box.replaceChildren();
  for (const index of state.order || []) {
    const sample = monitor().samples[index], title = make("h3"), panels = make("div", { class: "panels" }), facts = make("p", { class: "facts" });
    const strip = draw("svg", { class: "strip", preserveAspectRatio: "none", viewBox: `0 0 ${looks().length} 9`, role: "img" });
    const element = make("article", { class: "card" }, title, panels, facts, strip);
    cards.push({ index, sample, element, title, panels, facts, strip });
    if (sample.slices) addSlider(cards[cards.length - 1]);
    box.append(element);
  }
  // as many lines as the longest caption of the run may take, so that no card moves when the words change
  const longest = highest(looks().map((each) => highest((each.samples || []).map((words) => words.caption.length))));
  box.style.setProperty("--caption", longest > 42 ? "2.9em" : "1.45em");
  drawStrips();
  showCards();
}
// A stroke a look: right or wrong over the run, so that it is seen when a sample turned.
function drawStrips() {
  for (const card of cards) {
    const said = looks().map((each) => ((each.samples || [])[card.index] || NOTHING).right);
    const isJudged = said.some((each) => each === true || each === false) && said.length > 1;
    card.strip.style.display = isJudged ? "" : "none";
    fill(card.strip, !isJudged ? [] : said.map((each, i) => draw("rect", { x: i + 0.06, width: 0.88, y: each === false ? 4 : 1, height: each === false ? 5 : 7, class: each === true ? "r" : each === false ? "w" : "n" })));
    card.strip.setAttribute("aria-label", `Right at ${said.filter((each) => each === true).length} of ${plural(said.length, "look")}`);
    card.marker = draw("rect", { class: "now", y: 0.5, height: 8, width: 1, "vector-effect": "non-scaling-stroke" });
    card.strip.append(card.marker);
  }
}
const peakWords = (map) => (!map ? "no map" : map[1] === null ? "not finite" : map[1] === 0 ? "blank" : `peak ${map[1] < 0.001 || map[1] >= 1000 ? map[1].toExponential(1) : Number(map[1].toPrecision(2))}`);

function addMap(card, now, sample, words, heading) {
  const map = (words.maps || NOTHING)[method()], canvas = canvasOf(sample, `${method()} map: ${peakWords(map)}. ${words.caption}`);
  const box = panel(sample, `${heading}${peakWords(map)}`, canvas);
  paintHeat(canvas, sample, map, now.size);
  lay(box, sample, map);
  card.panels.append(box.figure);
}
function lay({ frame, sheet }, sample, map) {
  const blank = map && !map[1];
  if (sample.outline && $("outlines").checked && !blank) sheet.append(make("img", { class: "outline", src: sample.outline, alt: "" }));
  if (blank) frame.append(make("div", { class: "blank" }, make("span", {}, map[1] === null ? "not finite" : "blank")));
  else if (map) {
    const ring = make("div", { class: "ring" });
    ring.style.top = `${100 * map[2]}%`; ring.style.left = `${100 * map[3]}%`;
    sheet.append(ring);
  }
}
function showCards() {
  const now = look(), other = against(), step = other ? `step ${number(now.step)}: ` : "";
  for (const card of cards) {
    const words = now.samples[card.index], before = other && (other.look.samples || [])[card.index];
    const mark = words.right === true ? "✓ " : words.right === false ? "✗ " : "";
    card.element.className = `card ${words.right === true ? "right" : words.right === false ? "wrong" : ""}`;
    card.title.replaceChildren(make("span", { class: "mark", "aria-label": mark ? (words.right ? "right" : "wrong") : "" }, mark), words.caption);
    card.title.title = words.caption;
    card.panels.replaceChildren();
    if ($("plain").checked && (!other || innerWidth > 640)) {
      const pictures = [...(card.sample.band ? [] : [["image", card.sample.image]]), ...Object.entries(card.sample.beside || NOTHING)];
      for (const [name, uri] of pictures) {
        const box = panel(card.sample, name, imageOf(card.sample, uri, `Sample ${card.index + 1}, ${name}: ${words.caption}`));
        if (uri === card.sample.image) lay(box, card.sample, null);
        card.panels.append(box.figure);
      }
    }
    if (before && $("how").value === "difference") {
      const canvas = canvasOf(card.sample, `Difference of the maps to ${other.words}. ${words.caption}`), box = panel(card.sample, "difference", canvas);
      const a = words.maps[method()], b = (before.maps || NOTHING)[method()];
      paintDifference(canvas, card.sample, a, now.size, b, other.look.size);
      lay(box, card.sample, undefined);
      box.caption.textContent = `difference · ${peakWords(b)} → ${peakWords(a)}`;
      card.panels.append(box.figure);
    } else {
      if (before) addMap(card, other.look, other.samples[card.index] || card.sample, before, `${other.words}: `);
      addMap(card, now, card.sample, words, step);
    }
    const own = ["energy", "iou", "pointing_game"].map((name) => [name, scoreOf(words, name), before && scoreOf(before, name)]).filter((each) => each[1] !== undefined);
    card.facts.replaceChildren(...own.flatMap(([name, value, was], i) => [i ? " · " : "", `${name.replaceAll("_", " ")} `, make("b", {}, decimal(value)), was === undefined || was === null ? "" : ` (${signed(value - was)})`]));
    if (before && before.caption !== words.caption) card.facts.append(make("br"), `${other.words}: ${before.caption}`);
    card.marker.setAttribute("x", state.look);
    turn(card);
  }
  const differs = other && $("how").value === "difference";
  document.querySelector(".legend-bar").className = differs ? "legend-bar difference" : "legend-bar";
  $("legend-words").textContent = differs ? "less to more than before; each map scaled to its own maximum" : "nothing to each map's own maximum (its raw peak stands below it)";
}
// Looks that are known as whole pictures only.
function showWholes() {
  const other = against(), shown = [other && [other.look, other.words], [look(), `step ${number(look().step)}`]].filter(Boolean);
  $("cards").replaceChildren(make("div", { class: "wholes" }, ...shown.map(([each, words]) => make("figure", {}, make("img", { class: "whole", src: each.picture, alt: `All samples of the look at ${words}` }), make("figcaption", { class: "hint" }, words)))));
  $("count").textContent = "This run was read from pictures: its samples cannot be sorted one by one.";
}
